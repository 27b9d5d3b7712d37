"""The dashboard: `streamlit run app/main.py`. Routes to the pages; each of them answers one question.

The pages lie in `views/`: Streamlit runs a folder named `pages` by its own old rules, past this file, whenever a
server's first visitor comes by a deep link.
"""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])
if ROOT not in sys.path:  # Streamlit puts this file's folder on the path, the packages lie one above
    sys.path.insert(0, ROOT)

import streamlit as st  # noqa: E402

from app import collection  # noqa: E402
from app.components import frame  # noqa: E402

ICON = str(Path(__file__).with_name("icon.svg"))
st.set_page_config(page_title="HarmoniFuse Lab", page_icon=ICON, layout="wide")
st.logo(ICON, size="large")
page = st.navigation(
    [
        st.Page("views/listen.py", title="Listen", icon=":material/hearing:", default=True),
        st.Page("views/overview.py", title="Overview", icon=":material/view_list:", url_path="overview"),
        st.Page("views/run.py", title="Run", icon=":material/lab_profile:", url_path="run"),
        st.Page("views/layer_weights.py", title="Layer weights", icon=":material/grid_on:", url_path="layers"),
        st.Page("views/explorer.py", title="Routing explorer", icon=":material/scatter_plot:", url_path="explorer"),
        st.Page("views/utterance.py", title="Utterance", icon=":material/record_voice_over:", url_path="utterance"),
        st.Page("views/prompt_lab.py", title="Prompt lab", icon=":material/forum:", url_path="prompts"),
        st.Page("views/probes.py", title="Probes", icon=":material/biotech:", url_path="probes"),
        st.Page("views/faithfulness.py", title="Faithfulness", icon=":material/balance:", url_path="faithfulness"),
        st.Page("views/study.py", title="Study", icon=":material/experiment:", url_path="study"),
        st.Page("views/compare.py", title="Compare runs", icon=":material/compare_arrows:", url_path="compare"),
        st.Page("views/jobs.py", title="Jobs", icon=":material/pending_actions:", url_path="jobs"),
    ]
)
frame.shell()
page.run()
frame.about()
collection.settle()
