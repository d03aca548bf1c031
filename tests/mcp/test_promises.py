"""Which test shows what: each state of an execution for each kind of client, and each common complaint about long-running tools.

A line is a promise; the test that it names has to exist."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent

# "today" and "older" are the two eras; tests with `era` in their parameters run in both.
RESULTS: dict[str, dict[str, str]] = {
    "finished": {
        "today": "test_results.py::test_an_output_is_structured_content_and_the_same_as_text",
        "today, with tasks": "test_tasks.py::test_what_takes_longer_than_a_moment_is_a_task_with_the_executions_id",
        "older": "test_results.py::test_an_output_is_structured_content_and_the_same_as_text",
        "older, as a task": "test_tasks.py::test_an_older_client_that_asks_for_a_task_gets_one_and_is_asked_over_its_result",
    },
    "paused, and the client can ask": {
        "today": "test_questions.py::test_a_question_is_asked_with_a_form_and_its_answer_finishes_the_call",
        "today, with tasks": "test_tasks.py::test_answering_a_task_runs_nothing_again_even_in_another_process",
        "older": "test_questions.py::test_a_question_is_asked_with_a_form_and_its_answer_finishes_the_call",
        "older, as a task": "test_tasks.py::test_an_older_client_that_asks_for_a_task_gets_one_and_is_asked_over_its_result",
    },
    "paused, and the client cannot": {
        "today": "test_results.py::test_a_question_that_cannot_be_asked_is_a_handle",
        "older": "test_results.py::test_a_question_that_cannot_be_asked_is_a_handle",
    },
    "failed": {
        "today": "test_results.py::test_a_failed_workflow_is_an_error_with_its_reason_and_its_id",
        "today, with tasks": "test_tasks.py::test_a_tool_that_failed_is_a_completed_task_and_an_error_of_the_protocol_a_failed_one",
        "older": "test_results.py::test_a_failed_workflow_is_an_error_with_its_reason_and_its_id",
        "older, as a task": "test_tasks.py::test_an_older_task_whose_tool_failed_has_failed",
    },
    "a fault of the engine": {
        "today": "test_results.py::test_a_fault_inside_the_server_is_masked",
        "today, with tasks": "test_tasks.py::test_a_fault_of_the_engine_is_masked_for_those_who_ask_about_a_task",
        "older": "test_results.py::test_a_fault_inside_the_server_is_masked",
        "older, as a task": "test_tasks.py::test_a_fault_of_the_engine_is_masked_for_those_who_ask_about_a_task",
    },
    "an error of the protocol": {
        "today, with tasks": "test_tasks.py::test_a_tool_that_failed_is_a_completed_task_and_an_error_of_the_protocol_a_failed_one",
        "older, as a task": "test_tasks.py::test_an_older_task_is_cancelled_or_ends_with_an_error_of_the_protocol",
    },
    "cancelled": {
        "today": "test_results.py::test_a_cancelled_execution_is_an_error_for_the_call_that_waits",
        "today, with tasks": "test_tasks.py::test_a_cancelled_task_ends_as_cancelled_and_cancelling_again_does_no_harm",
        "older": "test_results.py::test_a_cancelled_execution_is_an_error_for_the_call_that_waits",
        "older, as a task": "test_tasks.py::test_an_older_task_is_cancelled_or_ends_with_an_error_of_the_protocol",
    },
    "still running when the call's time is up": {
        "today": "test_results.py::test_a_call_that_takes_too_long_ends_as_a_handle_and_the_work_goes_on",
        "older": "test_results.py::test_a_call_that_takes_too_long_ends_as_a_handle_and_the_work_goes_on",
    },
}

COMPLAINTS: dict[str, list[str]] = {
    "one stuck tool wedges the session": ["test_pains.py::test_a_call_that_is_stuck_keeps_no_other_waiting"],
    "progress does not extend the client's time": [
        "test_results.py::test_a_call_that_takes_too_long_ends_as_a_handle_and_the_work_goes_on"
    ],
    "more than 60 seconds cannot be had, whatever is set": [
        "test_pains.py::test_a_call_ends_before_the_least_patient_client_gives_up_and_that_can_be_less"
    ],
    "the socket hangs up during a long call": ["test_pains.py::test_the_answer_to_a_long_call_begins_at_once"],
    "the answer is lost although the server finished": [
        "test_http.py::test_a_call_that_was_lost_over_http_is_joined",
        "test_calls.py::test_a_result_that_its_caller_missed_is_given_to_the_same_call",
    ],
    "the client cuts the call, and the model believes that it failed": [
        "test_calls.py::test_the_same_call_after_a_lost_one_joins_its_execution",
        "test_stdio.py::test_a_call_that_its_client_gave_up_is_joined_by_the_same_call",
    ],
    "a result that comes after the cancel is dropped": [
        "test_calls.py::test_a_result_that_its_caller_missed_is_given_to_the_same_call"
    ],
    "people build tools to poll by hand": ["test_controls.py::test_get_execution_tells_how_it_ended"],
    "forms are not there, depending on the surface": [
        "test_results.py::test_a_question_that_cannot_be_asked_is_a_handle",
        "test_pains.py::test_an_older_client_that_cannot_ask_after_all_gets_a_handle",
        "test_questions.py::test_a_question_that_is_turned_down_stays_open",
    ],
    "a tool that must be a task cannot be used": [
        "test_tasks.py::test_a_client_that_knows_no_tasks_gets_none",
        "test_tasks.py::test_an_older_client_sees_which_tools_may_be_tasks",
    ],
    "silent streams are cut by HTTP libraries and load balancers": [
        "test_calls.py::test_a_silent_workflow_has_a_heartbeat",
        "test_calls.py::test_progress_grows_names_the_execution_and_is_short",
    ],
    "the time runs while a person answers": [
        "test_questions.py::test_a_pushed_question_is_dropped_when_the_call_runs_out_of_time",
        "test_questions.py::test_a_state_works_in_another_server_and_is_refused_when_it_was_tampered_with",
    ],
    "a timed-out call takes the connection down": ["test_pains.py::test_a_timed_out_call_takes_no_other_with_it"],
    "a restart of the server breaks its clients": [
        "test_pains.py::test_a_client_of_today_notices_nothing_of_a_restart",
        "test_pains.py::test_an_older_client_is_told_after_a_restart_that_its_session_is_gone",
    ],
    "names of tools are too long, or refused": ["test_catalog.py::test_names_are_what_every_client_takes"],
    "a retry does everything twice": [
        "test_calls.py::test_the_same_call_after_a_lost_one_joins_its_execution",
        "test_calls.py::test_an_idempotency_key_names_one_execution_for_good",
    ],
    "a probe starts what is slow, or is not answered": [
        "test_pains.py::test_a_probe_is_answered_at_once_and_runs_no_workflow"
    ],
    "listeners come back for ever": ["test_pains.py::test_a_server_without_sessions_keeps_its_listeners"],
    "models burn tokens by polling": [
        "test_results.py::test_a_call_that_takes_too_long_ends_as_a_handle_and_the_work_goes_on"
    ],
}


def test_every_test_that_is_named_exists() -> None:
    named = {test for cells in RESULTS.values() for test in cells.values()}
    named |= {test for tests in COMPLAINTS.values() for test in tests}
    assert [test for test in sorted(named) if not exists(*test.split("::"))] == []


def exists(file: str, name: str) -> bool:
    return re.search(rf"^(async )?def {name}\(", (HERE / file).read_text("utf-8"), re.MULTILINE) is not None
