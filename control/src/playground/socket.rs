//! The API of a running playground, for `miroir playground ps`, `kill`, `start` and `add`: HTTP on the loopback address, with a
//! token.

use super::{
    NewNodes,
    args::{Action, OfArgs},
    state::State,
    supervisor::{ProcessView, Supervisor},
};
use crate::base::output::say;
use crate::{
    api::admin::TOKEN_HEADER,
    base::{
        error::{Error, Result, chain},
        secrets,
    },
};
use axum::{
    Json, Router,
    extract::{Path, Request, State as Shared},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use miroir_core::path::ApiPath;
use std::sync::Arc;

/// The playground's routes.
pub(super) fn router(supervisor: Arc<Supervisor>, more: NewNodes, token: String) -> Router {
    let more = Arc::new(more);
    let of = supervisor.clone();
    Router::new()
        .route("/processes", get(list))
        .route("/processes/add", post(async move || answer(more.add(&of), &of)))
        .route("/processes/{name}/kill", post(kill))
        .route("/processes/{name}/start", post(start))
        .with_state(supervisor)
        .layer(from_fn_with_state(token, check))
}

async fn check(Shared(token): Shared<String>, request: Request, next: Next) -> Response {
    let given = request.headers().get(TOKEN_HEADER).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if secrets::same(given, &token) {
        return next.run(request).await;
    }
    StatusCode::FORBIDDEN.into_response()
}

async fn list(supervisor: Shared<Arc<Supervisor>>) -> Json<Vec<ProcessView>> {
    Json(supervisor.list())
}

async fn kill(supervisor: Shared<Arc<Supervisor>>, Path(name): Path<String>) -> Response {
    answer(supervisor.kill(&name), &supervisor)
}

async fn start(supervisor: Shared<Arc<Supervisor>>, Path(name): Path<String>) -> Response {
    answer(supervisor.start(&name), &supervisor)
}

fn answer(result: Result<()>, supervisor: &Supervisor) -> Response {
    match result {
        Ok(()) => Json(supervisor.list()).into_response(),
        Err(error) => (StatusCode::CONFLICT, error.to_string()).into_response(),
    }
}

/// Runs an action on the running playground.
///
/// # Errors
/// No playground runs there, or it refuses the action.
pub async fn act(action: &Action) -> Result<()> {
    let (of, method, path) = match action {
        Action::Add(of) => return add(of).await,
        Action::Ps(of) => (of, reqwest::Method::GET, "/processes".into()),
        Action::Kill { name, of } => (of, reqwest::Method::POST, ApiPath::new(["processes", name, "kill"])),
        Action::Start { name, of } => (of, reqwest::Method::POST, ApiPath::new(["processes", name, "start"])),
    };
    let processes = ask(of, method, &path).await?;
    if of.json {
        say!("{}", serde_json::to_string_pretty(&processes)?);
        return Ok(());
    }
    let mut table = crate::base::table::table(&["name", "state", "for", "pid", "address"]);
    for process in processes {
        table.add_row([
            process.name,
            process.state,
            format!("{} s", process.seconds),
            process.pid.map(|pid| pid.to_string()).unwrap_or_default(),
            process.address,
        ]);
    }
    say!("{table}");
    Ok(())
}

/// Starts another node, and prints how to add it to the cluster.
async fn add(of: &OfArgs) -> Result<()> {
    let processes = ask(of, reqwest::Method::POST, &"/processes/add".into()).await?;
    let mut nodes = processes.iter().filter(|process| process.name.starts_with("meili-"));
    let node = nodes.next_back().ok_or_else(|| Error::Other("no node was started".to_owned()))?;
    super::until_ok(&super::local_client()?, &format!("{}/health", node.address), None, &node.name).await?;
    if of.json {
        say!("{}", serde_json::to_string_pretty(node)?);
    } else {
        say!("`{}` is running, but not in the cluster yet. To add it:", node.name);
        say!("  miroir node add {}={} --data {}", node.name, node.address, of.data.display());
    }
    Ok(())
}

async fn ask(of: &OfArgs, method: reqwest::Method, path: &ApiPath) -> Result<Vec<ProcessView>> {
    let state = State::read(&of.data)?;
    let none = |error: reqwest::Error| {
        Error::Other(format!("no playground runs in {}: {}", of.data.display(), chain(&error)))
    };
    let answer = super::local_client()?
        .request(method, format!("{}{path}", state.admin))
        .header(TOKEN_HEADER, &state.token)
        .send()
        .await
        .map_err(none)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(none)?;
    if !status.is_success() {
        return Err(Error::Other(String::from_utf8_lossy(&body).into_owned()));
    }
    Ok(serde_json::from_slice(&body)?)
}
