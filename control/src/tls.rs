//! TLS to nodes: whom to trust, and who to be.

use crate::error::{Error, Result};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Where a machine keeps the authorities that it trusts: what gateways trust where nothing else is said.
pub const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// How nodes with `https` URLs are spoken to, by the control plane and by gateways, which have the files at the same paths.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct NodeTls {
    /// Who vouches for nodes with https URLs: certificates, PEM, at the same path for gateways [default: who is known anyway]
    #[arg(long, env = "MIROIR_NODE_CA")]
    pub node_ca: Option<PathBuf>,
    /// Who to be to these nodes (mTLS): a certificate and its key in one file, PEM, at the same path for gateways
    #[arg(long, env = "MIROIR_NODE_IDENTITY")]
    pub node_identity: Option<PathBuf>,
}

impl NodeTls {
    /// The authorities that gateways trust.
    #[must_use]
    pub fn authorities(&self) -> &Path {
        self.node_ca.as_deref().unwrap_or(Path::new(SYSTEM_AUTHORITIES))
    }

    /// The one HTTP client for nodes.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it must be.
    pub fn client(&self) -> Result<reqwest::Client> {
        let mut builder = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .pool_max_idle_per_host(32);
        let read = |path: &Path| std::fs::read(path).map_err(Error::file(path));
        let wrong = |flag: &str, path: &Path, error: reqwest::Error| {
            Error::Config(vec![format!("{flag}: {}: {error}", path.display())])
        };
        if let Some(path) = &self.node_ca {
            let authorities = reqwest::Certificate::from_pem_bundle(&read(path)?);
            let authorities = authorities.map_err(|error| wrong("--node-ca", path, error))?;
            if authorities.is_empty() {
                return Err(Error::Config(vec![format!("--node-ca: {} has no certificate", path.display())]));
            }
            builder = builder.tls_built_in_root_certs(false);
            builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        if let Some(path) = &self.node_identity {
            let identity = reqwest::Identity::from_pem(&read(path)?);
            builder = builder.identity(identity.map_err(|error| wrong("--node-identity", path, error))?);
        }
        builder.build().map_err(|error| Error::Config(vec![format!("TLS to nodes: {error}")]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nothing.pem");
        assert!(NodeTls::default().client().is_ok());
        let authorities = NodeTls { node_ca: Some(file.clone()), ..NodeTls::default() };
        let identity = NodeTls { node_identity: Some(file.clone()), ..NodeTls::default() };
        assert!(authorities.client().is_err() && identity.client().is_err(), "there is no such file");
        std::fs::write(&file, "nothing").unwrap();
        for (tls, flag) in [(authorities, "--node-ca"), (identity, "--node-identity")] {
            let Err(Error::Config(errors)) = tls.client() else { panic!("{flag} is taken") };
            assert!(errors[0].starts_with(flag), "{errors:?}");
        }
    }
}
