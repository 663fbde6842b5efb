from __future__ import annotations

import json

from dalston.cli import safe_text

HOSTILE = "a\x1b]0;title\x07b\x1b[2J\x9bc\r\n\u202egnp.exe\u2066\x7f[bold]d[/bold]\t."


def test_line_contains_no_control_characters() -> None:
    assert safe_text.line(HOSTILE) == "a]0;titleb[2Jc  gnp.exe[bold]d[/bold] ."
    assert safe_text.line("Ünïcödé 日本語 🙂 שלום") == "Ünïcödé 日本語 🙂 שלום"


def test_text_keeps_its_lines() -> None:
    assert safe_text.text("1\n\x1b[31m2\tred\r\n") == "1\n[31m2\tred\n"


def test_safe_json_is_equivalent_without_control_characters() -> None:
    document = json.dumps({"text": HOSTILE}, ensure_ascii=False)
    safe = safe_text.json(document)
    assert json.loads(safe) == {"text": HOSTILE}
    assert safe == safe_text.text(safe)
