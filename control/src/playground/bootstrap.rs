//! Envoy's bootstrap: the sample in `envoy/filesystem-xds.yaml`, filled in.

use std::{net::SocketAddr, path::Path};

const SAMPLE: &str = include_str!("../../../envoy/filesystem-xds.yaml");

/// A gateway's bootstrap.
#[derive(Clone, Debug)]
pub struct Bootstrap<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Envoy's admin interface.
    pub admin_port: u16,
    /// The folder that the control plane publishes to.
    pub xds: &'a Path,
    /// Leaves the filter out.
    pub no_filter: bool,
}

impl Bootstrap<'_> {
    /// YAML for Envoy.
    #[must_use]
    pub fn render(&self) -> String {
        let sample = if self.no_filter { without_filter() } else { SAMPLE.to_owned() };
        let ip = self.listen.ip().to_string();
        let text = sample
            .lines()
            // Comments name the placeholders.
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n");
        [
            ("${NODE_ID}", self.name.to_owned()),
            ("${LISTEN_ADDRESS}", ip),
            ("${LISTEN_PORT}", self.listen.port().to_string()),
            ("${ADMIN_PORT}", self.admin_port.to_string()),
            ("${XDS_DIR}", self.xds.display().to_string()),
        ]
        .into_iter()
        .fold(text, |text, (placeholder, value)| text.replace(placeholder, &value))
    }
}

fn without_filter() -> String {
    let start = SAMPLE.find("                  - name: miroir\n");
    let end = SAMPLE.find("                  - name: envoy.filters.http.router\n");
    match (start, end) {
        (Some(start), Some(end)) => {
            let mut text = SAMPLE.to_owned();
            text.replace_range(start..end, "");
            text
        }
        _ => SAMPLE.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_filled_in() {
        let mut bootstrap = Bootstrap {
            name: "gateway-0",
            listen: "127.0.0.1:7700".parse().unwrap(),
            admin_port: 9901,
            xds: Path::new("/data/xds"),
            no_filter: false,
        };
        let text = bootstrap.render();
        assert!(!text.contains("${"), "{text}");
        let read: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
        let filters = |read: &serde_json::Value| {
            let chain = &read["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
            chain["typed_config"]["http_filters"].as_array().unwrap().len()
        };
        assert_eq!(filters(&read), 4);
        assert_eq!(
            read["dynamic_resources"]["cds_config"]["path_config_source"]["path"],
            "/data/xds/cds.json"
        );
        bootstrap.no_filter = true;
        assert_eq!(filters(&serde_yaml_ng::from_str(&bootstrap.render()).unwrap()), 3);
    }
}
