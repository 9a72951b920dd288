//! Requests of the command line to the control plane.

use super::QueryArgs;
use crate::{
    api::admin::TOKEN_HEADER,
    base::{
        error::{Error, Result, chain},
        secrets::Secrets,
        tls::ClientFiles,
    },
};
use miroir_core::error::ErrorBody;
use reqwest::Method;
use serde::{Serialize, de::DeserializeOwned};
use std::{path::Path, time::Duration};

/// Sends a `GET` to the control plane.
///
/// # Errors
/// The control plane is not known, does not answer, or refuses.
pub async fn get<T: DeserializeOwned>(args: &QueryArgs, path: &str) -> Result<T> {
    send(args, Method::GET, path, None::<&()>, Duration::from_secs(10)).await
}

/// Sends a `POST` to the control plane. It may take up to an hour.
///
/// # Errors
/// The control plane is not known, does not answer, or refuses.
pub async fn post<T: DeserializeOwned>(args: &QueryArgs, path: &str, body: &impl Serialize) -> Result<T> {
    send(args, Method::POST, path, Some(body), Duration::from_secs(3600)).await
}

async fn send<T: DeserializeOwned>(
    args: &QueryArgs,
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
    timeout: Duration,
) -> Result<T> {
    let (url, token) = find(args)?;
    let files = ClientFiles {
        authorities: ("--control-ca", args.control_ca.as_deref()),
        identity: ("--control-identity", args.control_identity.as_deref()),
    };
    let client = files.client()?.timeout(timeout).build();
    let mut request = client
        .map_err(|error| Error::Config(vec![format!("TLS to the control plane: {}", chain(&error))]))?
        .request(method, format!("{}{path}", url.trim_end_matches('/')))
        .header(TOKEN_HEADER, token);
    if let Some(body) = body {
        request = request.json(body);
    }
    let failed = |error: reqwest::Error| {
        let may_be_heard = body.is_some() && !error.is_connect();
        let hint = if may_be_heard { "; `miroir status` shows whether it got the request" } else { "" };
        Error::Other(format!("the control plane at {url} does not answer: {}{hint}", chain(&error)))
    };
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    let bytes = answer.bytes().await.map_err(failed)?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let (409, Ok(refused)) = (status.as_u16(), serde_json::from_str::<ErrorBody>(&text)) {
            return Err(Error::Other(refused.message));
        }
        return Err(Error::Other(format!("the control plane at {url} answered {status}: {text}")));
    }
    Ok(serde_json::from_slice(&bytes)?)
}

fn find(args: &QueryArgs) -> Result<(String, String)> {
    let url = match (&args.control, &args.data) {
        (Some(url), _) => url.clone(),
        (None, Some(data)) => control_url(data)?,
        (None, None) => {
            return Err(Error::Other(
                "the control plane is not known: give --control URL or --data DIR".to_owned(),
            ));
        }
    };
    if let Ok(token) = std::env::var("MIROIR_TOKEN") {
        return Ok((url, token));
    }
    let Some(data) = &args.data else {
        return Err(Error::Other(
            "the admin token is missing: set MIROIR_TOKEN, or give --data DIR".to_owned(),
        ));
    };
    let own = Secrets::read(data).or_else(|_| Secrets::read(&data.join("control")))?;
    Ok((url, own.admin_token))
}

/// Reads the control plane's URL from the state of a playground or of a control plane.
fn control_url(data: &Path) -> Result<String> {
    for name in ["playground.json", "control.json"] {
        let Ok(bytes) = std::fs::read(data.join(name)) else { continue };
        let state: serde_json::Value = serde_json::from_slice(&bytes)?;
        if let Some(url) = state.get("control").and_then(serde_json::Value::as_str) {
            return Ok(url.to_owned());
        }
    }
    Err(Error::Other(format!("there is no playground and no control plane in {}", data.display())))
}
