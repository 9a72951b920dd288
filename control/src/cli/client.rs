//! The CLI's way to its control plane.

use super::QueryArgs;
use crate::{
    api::admin::TOKEN_HEADER,
    error::{Error, Result},
    secrets::Secrets,
};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Asks the control plane.
///
/// # Errors
/// It cannot be found, does not answer, or refuses.
pub async fn get<T: DeserializeOwned>(args: &QueryArgs, path: &str) -> Result<T> {
    let (url, token) = find(args)?;
    let request = reqwest::Client::builder()
        .no_proxy()
        .timeout(std::time::Duration::from_secs(10))
        .build()
        .unwrap_or_default()
        .get(format!("{}{path}", url.trim_end_matches('/')))
        .header(TOKEN_HEADER, token);
    let failed =
        |error: reqwest::Error| Error::Other(format!("the control plane at {url} does not answer: {error}"));
    let answer = request.send().await.map_err(failed)?;
    let status = answer.status();
    let body = answer.bytes().await.map_err(failed)?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body).into_owned();
        return Err(Error::Other(format!("the control plane at {url} answered {status}: {text}")));
    }
    Ok(serde_json::from_slice(&body)?)
}

fn find(args: &QueryArgs) -> Result<(String, String)> {
    let url = match (&args.control, &args.data) {
        (Some(url), _) => url.clone(),
        (None, Some(data)) => control_url(data)?,
        (None, None) => {
            return Err(Error::Other(
                "say where the control plane is: --control URL or --data DIR".to_owned(),
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

/// The control plane's URL, as a playground's state or a control plane's own says.
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
