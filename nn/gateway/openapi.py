"""What the gateway offers, as OpenAPI 3.1 describes it."""

from __future__ import annotations

from typing import Any

from mpc.core.versions import own_version
from nn.gateway.asking import ANSWERS
from nn.gateway.bodies import ARROW, CSV, JSON, NPY

__all__ = ["description"]

_BINARY: dict[str, Any] = {"type": "string", "contentMediaType": "application/octet-stream"}
_STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
_NUMBERS: dict[str, Any] = {"type": "array", "items": {"type": "number"}}
_MODEL: dict[str, Any] = {
    "name": "model", "in": "path", "required": True, "schema": {"type": "string"},
}  # fmt: skip
_PROBLEMS = {
    "400": "A query or body that cannot be read.",
    "403": "An answer that the model's owner does not allow, or a page of another site.",
    "404": "No such model.",
    "406": "A form of answer that there is not.",
    "408": "A body that came too slowly.",
    "413": "Too many bytes or rows.",
    "415": "A form of body that there is not.",
    "421": "A Host that the gateway is not called.",
    "422": "Rows that the model does not take.",
    "429": "More than the client may ask for in an hour: Retry-After says when to try again.",
    "503": "Parties that are away, or too many requests: Retry-After says when to try again.",
    "504": "Parties that did not answer in time.",
}


def description(body: int, rows: int) -> dict[str, Any]:
    """Return the description, with the limits that hold."""
    several = {"type": "array", "maxItems": rows, "items": _NUMBERS}
    table = {
        "type": "object",
        "required": ["rows"],
        "additionalProperties": False,
        "properties": {
            "rows": several,
            "columns": {**_STRINGS, "description": "Checked against the model's features."},
        },
    }
    inputs = {
        "type": "object",
        "description": "Of a model with several inputs; all rows count.",
        "required": ["inputs"],
        "additionalProperties": False,
        "properties": {"inputs": {"type": "object", "additionalProperties": several}},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sotto gateway",
            "version": own_version(),
            "description": "Private predictions for programs at the client's side. The gateway "
            "sees rows and answers; those who compute the answers do not. Bodies have at "
            f"most {body} bytes and {rows} rows.",
        },
        "paths": {
            "/v1/models": {
                "get": _operation(
                    "models",
                    "The models that all parties serve.",
                    _reference("Models"),
                    "503",
                    "504",
                )
            },
            "/v1/models/{model}": {
                "parameters": [_MODEL],
                "get": _operation(
                    "model", "What is public of a model.", _reference("Model"), "404", "503", "504"
                ),
            },
            "/v1/models/{model}/predict": {
                "parameters": [_MODEL],
                "post": _predict({"oneOf": [table, inputs]}),
            },
            "/v1/health/live": {
                "get": _operation("live", "Whether the gateway runs.", {"type": "object"})
            },
            "/v1/health/ready": {
                "get": _operation(
                    "ready", "Whether all parties serve.", {"type": "object"}, "503", "504"
                )
            },
        },
        "components": {"schemas": _SCHEMAS},
    }


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _operation(name: str, summary: str, answer: dict[str, Any], *problems: str) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {"description": summary, "content": {JSON: {"schema": answer}}}
    }
    for status in (*problems, *(() if "403" in problems else ("403", "421"))):
        responses[status] = {
            "description": _PROBLEMS[status],
            "content": {"application/problem+json": {"schema": _reference("Problem")}},
        }
    return {"operationId": name, "summary": summary, "responses": responses}


def _predict(table: dict[str, Any]) -> dict[str, Any]:
    made = _operation(
        "predict", "The private answer for each row.", _reference("Answer"), *_PROBLEMS
    )
    made["responses"]["200"]["content"][NPY] = {"schema": _BINARY}
    made["parameters"] = [
        {
            "name": "answer", "in": "query",
            "description": "Default: labels; values of a regressor; several outputs by name.",
            "schema": {"enum": list(ANSWERS)},
        },
        {
            "name": "details", "in": "query",
            "description": "Whether to tell rounds, bytes and what each party got (JSON alone).",
            "schema": {"type": "boolean", "default": False},
        },
    ]  # fmt: skip
    made["requestBody"] = {
        "required": True,
        "content": {
            JSON: {"schema": table},
            CSV: {"schema": {"type": "string"}},
            NPY: {"schema": _BINARY},
            ARROW: {"schema": _BINARY},
        },
    }
    return made


_SCHEMAS: dict[str, Any] = {
    "Problem": {
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail", "error"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "error": {"type": "string"},
        },
    },
    "Models": {
        "type": "object",
        "required": ["me", "parties", "provider", "models"],
        "properties": {
            "me": {"type": "string"},
            "parties": _STRINGS,
            "provider": {"type": "boolean", "description": "Whether a crypto provider helps them."},
            "models": _STRINGS,
        },
    },
    "Model": {
        "type": "object",
        "required": ["name", "features", "low", "high", "answers"],
        "properties": {
            "name": {"type": "string"},
            "features": {"type": "integer"},
            "feature_names": {"type": ["array", "null"], "items": {"type": "string"}},
            "low": _NUMBERS,
            "high": _NUMBERS,
            "classes": {"type": ["array", "null"]},
            "answers": {"type": "array", "items": {"enum": list(ANSWERS)}},
            "inputs": {
                "type": ["object", "null"],
                "description": "Of a model with several inputs: the features of each, by name.",
                "additionalProperties": {"type": "integer"},
            },
            "outputs": {
                "type": ["object", "null"],
                "description": "Of a model with several outputs: what each is, and a row's shape.",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "kind": {"enum": ["labels", "probabilities", "values"]},
                        "shape": {"type": "array", "items": {"type": "integer"}},
                    },
                },
            },
        },
    },
    "Answer": {
        "type": "object",
        "required": ["model", "answer", "rows", "result"],
        "properties": {
            "model": {"type": "string"},
            "answer": {"enum": list(ANSWERS)},
            "rows": {"type": "integer"},
            "result": {
                "type": ["array", "object"],
                "description": "An entry a row; of several outputs an object of such arrays.",
            },
            "classes": {"type": "array"},
            "details": {
                "type": "object",
                "properties": {
                    "seconds": {"type": "number"},
                    "rounds": {"type": "integer"},
                    "bytes_between_parties": {"type": "integer"},
                    "parties": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "name": {"type": "string"},
                                "got": {"enum": ["a seed", "words"]},
                                "bytes_sent": {"type": "integer"},
                                "bytes_received": {"type": "integer"},
                                "share": _STRINGS,
                            },
                        },
                    },
                },
            },
        },
    },
}
