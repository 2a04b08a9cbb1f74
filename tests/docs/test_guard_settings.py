"""Every setting of the guard stands on its page, with its default."""

import pytest
from pydantic import BaseModel

from tests.docs.pages import REFERENCE
from titer.guard.settings import (
    AuditSettings,
    DestinationSettings,
    DICOMSettings,
    GuardSettings,
    JudgeSettings,
    PeerSettings,
    RouteSettings,
    SpoolSettings,
    TLSSettings,
    WebSettings,
)

_TABLES = {
    "": GuardSettings,
    "dicom": DICOMSettings,
    "web": WebSettings,
    "judge": JudgeSettings,
    "routes": RouteSettings,
    "destinations": DestinationSettings,
    "spool": SpoolSettings,
    "audit": AuditSettings,
}


@pytest.mark.parametrize("name", _TABLES)
def test_every_setting_of_a_table_stands_in_its_section(name: str) -> None:
    page = (REFERENCE / "guard.md").read_text()
    text = page.split(f"### {name}\n")[1].split("\n## ")[0].split("\n### ")[0] if name else page
    for field, info in _TABLES[name].model_fields.items():
        if name == "" and isinstance(info.default, BaseModel):
            assert f"### {field}" in page
            continue
        assert f"`{field}`" in text or f"### {field}" in text, field
        if isinstance(info.default, str | int | float) and not isinstance(info.default, bool):
            shown = f"{info.default:g}" if isinstance(info.default, float) else str(info.default)
            assert f"`{shown}`" in text, f"{field}: {shown}"


@pytest.mark.parametrize("table", [PeerSettings, TLSSettings])
def test_tables_within_tables_are_described(table: type[BaseModel]) -> None:
    page = (REFERENCE / "guard.md").read_text()
    assert all(f"`{field}`" in page for field in table.model_fields)
