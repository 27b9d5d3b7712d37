"""Overview: which runs are there, how good is each, and what deserves a look first?"""

from app import services
from app.components import frame, runs

QUESTION = "Which runs are there, how good is each, and what deserves a look first?"


def page() -> None:
    run = frame.open_page("Overview", QUESTION)
    if run is None:
        return
    summaries = [runs.read(one) for one in services.runs()]
    runs.show(summaries)
    found = next((summary for summary in summaries if summary.name == run.name), None)
    if found is not None:
        runs.detail(found)


page()
