//! TLS: whom to trust, and who to be, towards nodes and on the control plane's own port.

use crate::base::error::{Error, Result, chain};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

/// Where a machine keeps the authorities that it trusts: what gateways trust where nothing else is said.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

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

/// TLS on the control plane's own port: for gateways, their gRPC, and operators.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ControlTls {
    /// Speak TLS only: a certificate and its key in one file, PEM
    #[arg(long, env = "MIROIR_TLS_IDENTITY")]
    pub tls_identity: Option<PathBuf>,
    /// Whoever connects must have a certificate of these authorities (mTLS), PEM
    #[arg(long, env = "MIROIR_TLS_CLIENT_CA", requires = "tls_identity")]
    pub tls_client_ca: Option<PathBuf>,
    /// Who vouches for the control plane, PEM, at a path of gateways [default: who is known anyway]
    #[arg(long, env = "MIROIR_TLS_CA", requires = "tls_identity")]
    pub tls_ca: Option<PathBuf>,
    /// Who gateways are to the control plane (mTLS): a certificate and its key in one file, PEM, at a path of theirs
    #[arg(long, env = "MIROIR_GATEWAY_IDENTITY", requires = "tls_identity")]
    pub gateway_identity: Option<PathBuf>,
}

/// How gateways speak TLS to somebody: the paths are theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Whom to trust.
    pub authorities: PathBuf,
    /// Who to be, a certificate and its key in one file.
    pub identity: Option<PathBuf>,
}

impl UpstreamTls {
    fn new(authorities: Option<&PathBuf>, identity: Option<&PathBuf>) -> Self {
        let authorities = authorities.cloned().unwrap_or_else(|| SYSTEM_AUTHORITIES.into());
        Self { authorities, identity: identity.cloned() }
    }
}

/// The files that an HTTP client is told of, and the flags that name them.
#[derive(Clone, Copy, Debug)]
pub struct ClientFiles<'a> {
    /// Who vouches for servers; without it, who is known anyway.
    pub authorities: (&'static str, Option<&'a Path>),
    /// Who to be.
    pub identity: (&'static str, Option<&'a Path>),
}

impl ClientFiles<'_> {
    /// A client that trusts and is who the files say.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it must be.
    pub fn client(&self) -> Result<reqwest::ClientBuilder> {
        // Whoever builds more than this program may have another TLS too, which does not take these identities.
        let mut builder = reqwest::Client::builder().use_rustls_tls().no_proxy();
        if let (flag, Some(path)) = self.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(&read(path)?);
            let authorities = authorities.map_err(|error| wrong(flag, path, error))?;
            if authorities.is_empty() {
                return Err(wrong(flag, path, "has no certificate"));
            }
            builder = builder.tls_built_in_root_certs(false);
            builder = authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        if let (flag, Some(path)) = self.identity {
            let identity = reqwest::Identity::from_pem(&read(path)?);
            builder = builder.identity(identity.map_err(|error| wrong(flag, path, error))?);
        }
        Ok(builder)
    }
}

impl NodeTls {
    /// How gateways speak to nodes.
    #[must_use]
    pub fn upstream(&self) -> UpstreamTls {
        UpstreamTls::new(self.node_ca.as_ref(), self.node_identity.as_ref())
    }

    /// The one HTTP client for nodes.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it must be.
    pub fn client(&self) -> Result<reqwest::Client> {
        let files = ClientFiles {
            authorities: ("--node-ca", self.node_ca.as_deref()),
            identity: ("--node-identity", self.node_identity.as_deref()),
        };
        let builder = files.client()?.connect_timeout(Duration::from_secs(1)).pool_max_idle_per_host(32);
        builder.build().map_err(|error| Error::Config(vec![format!("TLS to nodes: {}", chain(&error))]))
    }
}

impl ControlTls {
    /// How gateways speak to the control plane; `None` for plain HTTP.
    #[must_use]
    pub fn upstream(&self) -> Option<UpstreamTls> {
        self.tls_identity.as_ref()?;
        Some(UpstreamTls::new(self.tls_ca.as_ref(), self.gateway_identity.as_ref()))
    }

    /// The scheme of the control plane's URL.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls_identity.is_some() { "https" } else { "http" }
    }

    /// What takes connections; `None` for plain HTTP.
    ///
    /// # Errors
    /// A file cannot be read, or is not what it must be.
    pub fn acceptor(&self) -> Result<Option<TlsAcceptor>> {
        let Some(path) = &self.tls_identity else { return Ok(None) };
        let flag = "--tls-identity";
        let pem = read(path)?;
        let own = certificates(flag, path, &pem)?;
        let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| wrong(flag, path, error))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(flag, path, error))?;
        let builder = match &self.tls_client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let flag = "--tls-client-ca";
                let mut roots = RootCertStore::empty();
                for authority in certificates(flag, path, &read(path)?)? {
                    roots.add(authority).map_err(|error| wrong(flag, path, error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| wrong(flag, path, error))?)
            }
        };
        let mut config = builder.with_single_cert(own, key).map_err(|error| wrong(flag, path, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(Error::file(path))
}

fn wrong(flag: &str, path: &Path, what: impl std::fmt::Display) -> Error {
    Error::Config(vec![format!("{flag}: {}: {what}", path.display())])
}

fn certificates(flag: &str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let certificates: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| wrong(flag, path, error))?;
    if certificates.is_empty() {
        return Err(wrong(flag, path, "has no certificate"));
    }
    Ok(certificates)
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
        let own = ControlTls { tls_identity: Some(file.clone()), ..ControlTls::default() };
        let Err(Error::Config(errors)) = own.acceptor() else { panic!("it is taken") };
        assert!(errors[0].starts_with("--tls-identity"), "{errors:?}");
        assert!(ControlTls::default().acceptor().unwrap().is_none(), "plain HTTP");
        for (tls, flag) in [(authorities, "--node-ca"), (identity, "--node-identity")] {
            let Err(Error::Config(errors)) = tls.client() else { panic!("{flag} is taken") };
            assert!(errors[0].starts_with(flag), "{errors:?}");
        }
    }
}
