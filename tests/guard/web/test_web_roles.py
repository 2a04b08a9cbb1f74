"""Every route of the application, for every role: the table of roles is what decides, and nothing stands beside it."""

import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import BaseRoute

from titer.guard.web.app import make_app
from titer.guard.web.roles import PERMISSIONS, PUBLIC, ROLES, allowed


def permissions_of(route: BaseRoute) -> list[str]:
    assert isinstance(route, APIRoute), f"{route} is no route with a gate"
    return [one.call.permission for one in route.dependant.dependencies if hasattr(one.call, "permission")]


def flat(routes: list[BaseRoute]) -> list[BaseRoute]:
    """Return routes, those of included routers as well."""
    out: list[BaseRoute] = []
    for one in routes:
        inner = getattr(getattr(one, "original_router", one), "routes", None)  # FastAPI wraps what is included
        out += flat(list(inner)) if inner is not None and not isinstance(one, APIRoute) else [one]
    return out


def test_every_route_names_one_permission_of_the_table(app: FastAPI) -> None:
    routes = flat(list(app.routes))
    assert len(routes) > 25
    for route in routes:
        found = permissions_of(route)
        assert len(found) == 1, f"{route} has permissions {found}"
        assert found[0] in PERMISSIONS


def test_only_login_health_and_design_are_public(app: FastAPI) -> None:
    public = {route.path for route in flat(list(app.routes)) if permissions_of(route) == [PUBLIC]}
    assert public == {"/login", "/static/{name}", "/health/live", "/health/ready"}


@pytest.mark.parametrize("role", ROLES)
def test_each_route_lets_in_the_roles_of_the_table_and_no_others(
    app: FastAPI, client: Callable[[str], TestClient], anyone: TestClient, role: str
) -> None:
    asked = 0
    for route in flat(list(app.routes)):
        assert isinstance(route, APIRoute)
        (permission,) = permissions_of(route)
        path = re.sub(r"\{[^}]*\}", "7", route.path)
        for method in sorted(route.methods - {"HEAD"}):
            if path == "/logout":
                continue
            status = client(role).request(method, path).status_code
            assert (status == 403) == (not allowed(permission, role)), f"{method} {path} as {role}: {status}"
            if permission != PUBLIC:
                assert anyone.request(method, path).status_code == 401, f"{method} {path} without a login"
            asked += 1
    assert asked > 25


def test_a_misspelt_permission_fails_when_the_application_is_made(context) -> None:
    from fastapi import APIRouter, Depends

    def other(_context, require) -> APIRouter:
        router = APIRouter()
        router.add_api_route("/x", lambda: None, dependencies=[Depends(require("case.raed"))])
        return router

    with pytest.raises(KeyError, match="raed"):
        make_app(context, others=[other])


def test_access_that_is_refused_is_an_alert(client, events) -> None:
    assert client("auditor").get("/accounts").status_code == 403
    last = events()[-1]
    assert last["type"]["code"] == "110113"
    assert {"type": "lacking", "valueString": "accounts.manage"} in last["entity"][0]["detail"]
