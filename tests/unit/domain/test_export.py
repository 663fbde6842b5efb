import json

from domain.captions import CaptionOptions
from domain.export import JsonRenderer, Renderer, SrtRenderer, TextRenderer, VttRenderer
from domain.transcript import DocumentVersion, TimedWord, Utterance, document

HELLO = Utterance(0.5, 2.0, "Hello, world.", 0.9, "en", words=(TimedWord("Hello,", 0.5, 1.0, 0.9),))
LATER = Utterance(3661.25, 3663.0, "Tom & Jerry <i>say</i> --> {\\an8} bye", 0.8, "en")


def rendered(renderer: Renderer, *utterances: Utterance) -> str:
    return renderer.begin() + "".join(renderer.push(each) for each in utterances) + renderer.end()


def test_text_has_one_line_for_each_utterance() -> None:
    broken = Utterance(5.0, 6.0, " two\nlines ", 0.9, "en")
    assert rendered(TextRenderer(), HELLO, broken) == "Hello, world.\ntwo lines\n"
    assert rendered(TextRenderer()) == ""


def test_srt_is_numbered_has_commas_and_no_markup() -> None:
    text = rendered(SrtRenderer(CaptionOptions()), HELLO, LATER)
    assert text.replace("\u2060", "|") == (
        "1\n00:00:00,500 --> 00:00:02,000\nHello, world.\n\n"
        "2\n01:01:01,250 --> 01:01:03,000\nTom & Jerry <|i>say<|/i> --|> {|\\an8} bye\n\n"
    )


def test_vtt_has_its_head_and_escapes() -> None:
    assert rendered(VttRenderer(CaptionOptions()), HELLO, LATER) == (
        "WEBVTT\n\n"
        "00:00:00.500 --> 00:00:02.000\nHello, world.\n\n"
        "01:01:01.250 --> 01:01:03.000\nTom &amp; Jerry &lt;i&gt;say&lt;/i&gt; --&gt; {\\an8} bye\n\n"
    )
    assert rendered(VttRenderer(CaptionOptions())) == "WEBVTT\n\n"


def test_hours_may_have_three_digits() -> None:
    late = Utterance(360_000.0, 360_001.0, "late", 0.8, "en")
    assert "100:00:00.000 --> 100:00:01.000" in rendered(VttRenderer(CaptionOptions()), late)


def test_json_has_the_shape_of_the_stored_document() -> None:
    for finals in ([], [HELLO], [HELLO, LATER]):
        stored = json.loads(document("sess_1", "en", 4000.5, finals))
        assert json.loads(rendered(JsonRenderer("sess_1", "en", 4000.5), *finals)) == stored
        version = DocumentVersion(2, "accurate", "enhanced")
        stored = json.loads(document("sess_1", "en", 4000.5, finals, version))
        assert json.loads(rendered(JsonRenderer("sess_1", "en", 4000.5, version), *finals)) == stored
