"""The ways in which the toy can be wrong: FAULT in its environment names one of them."""

import os

FAULTS = {
    "": "none",
    "dies_at_once": "ends before it listens",
    "never_ready": "listens and answers 503 for ever",
    "starts_slowly": "is silent for 1.5 s",
    "wrong_in_large_batches": "rows after the 4th are wrong by 1e-3",
    "wrong_now_and_then": "each 10th single row is wrong by 1e-3",
    "answers_500": "single rows are answered 500",
    "answers_nan": "rows after the 4th are answered NaN",
    "accepts_nan": "predicts whatever numbers it is sent",
    "accepts_2_mib": "has no limit of the body's size",
    "breaks_on_bad_input": "answers 500 to what it should refuse",
    "leaks_traceback": "refuses with a traceback",
    "refuses_in_silence": "refuses without a reason",
    "dies_of_bad_input": "ends when it is sent NaN",
    "wrong_after_bad_input": "predicts wrongly from the first refusal on",
    "drops_in_flight": "ends at once on SIGTERM",
    "ignores_sigterm": "goes on after SIGTERM",
    "answers_503_when_stopping": "refuses on SIGTERM what it has begun",
    "leaves_a_child_listening": "hands its port to a child that goes on",
    "counts_twice": "counts each request twice",
    "counts_nothing": "has no counter",
    "page_is_missing": "has no page",
    "page_without_labels": "has inputs without labels",
    "page_without_a_feature": "has no input for one feature",
    "page_loads_from_elsewhere": "has a script of another server",
    "page_posts_nowhere": "has a form whose address is not there",
    "v2_has_other_names": "calls its tensors x and y",
    "v2_takes_any_shape": "predicts whatever the shape says",
    "v2_knows_every_model": "answers for models it does not have",
    "v2_is_wrong": "answers by the protocol, wrongly",
    "offline_is_off": "one offline answer is wrong by 1e-3",
    "offline_loses_a_row": "writes one offline answer too few",
    "offline_ends_with_an_error": "scores nothing offline",
    "batches_nothing": "runs the model for each request on the path that batches",
    "batches_mix_answers_up": "gives callers each other's answers on the path that batches",
    "explains_all_alike": "gives each flight the same explanation",
    "explains_in_reverse": "gives the last feature's share to the first, and so on",
    "explains_in_words": "answers an explanation without numbers",
    "burns_cpu": "uses 10 ms of CPU for each request",
}
FAULT = os.environ.get("FAULT", "")
if FAULT not in FAULTS:
    raise SystemExit(f"FAULT: {FAULT!r}, expected one of {', '.join(FAULTS)}")
