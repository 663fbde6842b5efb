from server.session.recent_partials import RecentPartials


def test_without_passes_there_is_no_share() -> None:
    assert (RecentPartials().passes, RecentPartials().suppressed) == (0, None)


def test_the_share_counts_passes_for_which_the_model_had_no_time() -> None:
    recent = RecentPartials()
    for has_text in (True, False, True, True):
        recent.note_pass(has_text=has_text)
    assert (recent.passes, recent.suppressed) == (4, 0.25)
