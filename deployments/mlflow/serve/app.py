"""MLflow's scoring server for one saved model, with what it lacks: validation, metrics, V2 and a page.

`scoring_server.init` returns a plain FastAPI application with /invocations, /ping, /health and /version. It is not
a documented interface, so the version is pinned in the requirements.
"""

import os
from pathlib import Path

import open_inference
import prometheus_client
from fastapi.responses import HTMLResponse, Response
from guard import Guard
from metrics import RequestMetrics
from mlflow.pyfunc import scoring_server
from scorer import Scorer

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")

scorer = Scorer(os.environ["MODEL_PATH"])
app = scoring_server.init(scorer)
open_inference.add_routes(app, scorer, os.environ["MODEL_NAME"])


@app.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    return Response(prometheus_client.generate_latest(), media_type=prometheus_client.CONTENT_TYPE_LATEST)


@app.get("/web", include_in_schema=False)
async def page() -> HTMLResponse:
    return HTMLResponse(PAGE)


# The middleware added last is the outermost: refusals are counted too.
app.add_middleware(Guard, columns=scorer.columns)
app.add_middleware(RequestMetrics, routes=app.routes)
