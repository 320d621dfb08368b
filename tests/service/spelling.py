"""For schemathesis: JSON Schema takes 1.0 for a whole number, and the service has one spelling for each."""

from __future__ import annotations

import schemathesis


@schemathesis.hook
def map_body(_context: object, body: object) -> object:
    if not isinstance(body, dict):
        return body
    return {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in body.items()
    }
