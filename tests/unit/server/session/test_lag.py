from server.session.lag import Lag


def test_lag_runs_from_becoming_the_next_utterance_until_the_answer() -> None:
    answers: list[float] = []
    lag = Lag(answers.append)
    assert lag.at(5) == 0
    lag.handed_over(10)
    lag.handed_over(11)
    assert lag.at(12) == 2
    lag.answered(13)
    assert lag.at(14) == 1
    lag.answered(15)
    assert lag.at(99) == 0
    assert answers == [3, 2]


def test_waiting_for_its_own_session_is_not_lag() -> None:
    answers: list[float] = []
    lag = Lag(answers.append)
    for _ in range(4):
        lag.handed_over(0)
    for now in (1, 2, 3, 4):
        lag.answered(now)
    assert answers == [1, 1, 1, 1]
