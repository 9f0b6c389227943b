"""Stands in for the Lambda Web Adapter, whose program is in no package registry.

It is told what the adapter is told (the variables in template.yaml), starts the function's handler
as its layer does, and speaks Lambda's Runtime API as it does, responses streamed or whole. It is a
program of its own that needs nothing but Python:

    AWS_LAMBDA_RUNTIME_API=127.0.0.1:9001 LAMBDA_TASK_ROOT=… _HANDLER=run.sh python web_adapter.py
"""

import http.client
import json
import os
import subprocess
import sys
import time
from typing import Any

RUNTIME = "/2018-06-01/runtime"
STREAM_TYPE = "application/vnd.awslambda.http-integration-response"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
READINESS_PAUSE_SECONDS = 0.01


def start_handler() -> "subprocess.Popen[bytes]":
    """What the layer's /opt/bootstrap does."""
    if os.environ["AWS_LAMBDA_EXEC_WRAPPER"] != "/opt/bootstrap":
        sys.exit("the function does not start through the adapter's layer")
    root = os.environ["LAMBDA_TASK_ROOT"]
    return subprocess.Popen([f"{root}/{os.environ['_HANDLER']}"], cwd=root)


def wait_until_ready(handler: "subprocess.Popen[bytes]", port: int) -> None:
    """Ask for the readiness path until its status is the wanted one; ends with a dead handler."""
    path = os.environ.get("AWS_LWA_READINESS_CHECK_PATH", "/")
    wanted = int(os.environ.get("AWS_LWA_READINESS_CHECK_HEALTHY_STATUS", "200"))
    while True:
        code = handler.poll()
        if code is not None:
            print(f"Error: Runtime exited with error: exit status {code}", flush=True)
            sys.exit(code)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            if connection.getresponse().status == wanted:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(READINESS_PAUSE_SECONDS)


def ask_app(event: dict[str, Any], port: int) -> http.client.HTTPResponse:
    """Turn an event of a function URL into a request to the app."""
    context = event["requestContext"]
    headers = {**event["headers"], "x-amzn-request-context": json.dumps(context)}
    query = event.get("rawQueryString")
    path = event["rawPath"] + (f"?{query}" if query else "")
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(context["http"]["method"], path, body=event.get("body"), headers=headers)
    return connection.getresponse()


def respond(
    runtime: http.client.HTTPConnection, path: str, answer: http.client.HTTPResponse
) -> None:
    """Hand the app's answer to Lambda, as it comes or as one whole."""
    told: dict[str, Any] = {
        "statusCode": answer.status,
        "headers": {n.lower(): v for n, v in answer.getheaders() if n.lower() not in HOP_BY_HOP},
        "cookies": [],
    }
    if os.environ.get("AWS_LWA_INVOKE_MODE") != "response_stream":
        whole = {**told, "body": answer.read().decode(), "isBase64Encoded": False}
        runtime.request("POST", path, json.dumps(whole))
    else:
        runtime.putrequest("POST", path)
        runtime.putheader("Content-Type", STREAM_TYPE)
        runtime.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
        runtime.putheader("Transfer-Encoding", "chunked")
        runtime.endheaders()
        send_chunk(runtime, json.dumps(told).encode() + bytes(8))
        while data := answer.read1(65536):
            send_chunk(runtime, data)
        runtime.send(b"0\r\n\r\n")
    runtime.getresponse().read()


def send_chunk(connection: http.client.HTTPConnection, data: bytes) -> None:
    connection.send(b"%x\r\n%s\r\n" % (len(data), data))


def main() -> None:
    api, port = os.environ["AWS_LAMBDA_RUNTIME_API"], int(os.environ["AWS_LWA_PORT"])
    wait_until_ready(start_handler(), port)
    while True:
        runtime = http.client.HTTPConnection(api)
        runtime.request("GET", f"{RUNTIME}/invocation/next")
        invocation = runtime.getresponse()
        request_id = invocation.headers["Lambda-Runtime-Aws-Request-Id"]
        answer = ask_app(json.loads(invocation.read()), port)
        respond(runtime, f"{RUNTIME}/invocation/{request_id}/response", answer)
        runtime.close()


if __name__ == "__main__":
    main()
