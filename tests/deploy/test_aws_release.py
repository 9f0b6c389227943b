"""deploy/aws/release.sh with AWS's own command, against AWS as moto's server plays it."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.aws import Aws, running_aws
from tests.deploy.aws_tools import install
from tests.deploy.runbook import rollback
from tests.kit import answers, generate, run
from tests.releases.snapshot import ROOT

pytestmark = pytest.mark.deploy

STACK = {
    "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
    "Outputs": {"FunctionName": {"Value": "the-function"}},
}
TRUST = {"Version": "2012-10-17", "Statement": []}


@pytest.fixture
def aws() -> Iterator[Aws]:
    with running_aws() as running:
        yield running


def deployed(aws: Aws) -> None:
    """A stack whose function has two versions, the second behind the alias."""
    aws.client("cloudformation").create_stack(
        StackName="my-llm-app", TemplateBody=json.dumps(STACK)
    )
    role = aws.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument=json.dumps(TRUST))
    functions = aws.client("lambda")
    for number in ("1", "2"):
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("run.sh", number)
        if number == "1":
            functions.create_function(
                FunctionName="the-function",
                Role=role["Role"]["Arn"],
                Code={"ZipFile": code.getvalue()},
                Runtime="python3.13",
                Handler="run.sh",
            )
        else:
            functions.update_function_code(FunctionName="the-function", ZipFile=code.getvalue())
        functions.publish_version(FunctionName="the-function")
    functions.create_alias(FunctionName="the-function", Name="live", FunctionVersion="2")


def test_it_knows_the_version_and_goes_back(aws: Aws, folder: Path, tmp_path: Path) -> None:
    tools = install(ROOT / "build/aws")
    app = generate(folder, tmp_path / "app", answers(deploy="aws", store="redis"))

    def release(*arguments: str) -> str:
        environment = tools.environment(**aws.environment)
        return run(app, "deploy/aws/release.sh", *arguments, **environment).strip()

    assert release("version") == "version=", "nothing is deployed yet"
    deployed(aws)
    assert release("version") == "version=2"
    look, back = rollback(app, VERSION="1")
    assert [look[0], back[0]] == ["deploy/aws/release.sh"] * 2
    assert release(*look[1:]) == "version=2"
    assert release(*back[1:]) == "serving again: version 1"
    assert release("version") == "version=1"
    with pytest.raises(AssertionError, match="usage"):
        release("forward")
