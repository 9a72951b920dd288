//! All connections use mutual TLS: between nodes, control plane, gateway and command line.

use super::Envoy;
use miroir_tests::{
    Client, MASTER_KEY, free_port, node_program, nodes_are_real, programs, scratch, wait_until,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

/// A process that is killed when this value is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A certificate authority, and the certificates that it signs. A certificate and its key are in one file.
struct Certificates {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    fn new(folder: &Path) -> Self {
        std::fs::create_dir(folder).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        Self { folder: folder.to_owned(), authority }
    }

    fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    fn identity(&self, name: &str) -> PathBuf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        // With the authority's name, the certificate would look self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        let own = params.signed_by(&key, &self.authority).unwrap();
        let path = self.folder.join(format!("{name}.pem"));
        std::fs::write(&path, format!("{}{}", own.pem(), key.serialize_pem())).unwrap();
        path
    }
}

fn roots(ca: &Path) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    roots
}

fn own(identity: &Path) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_file_iter(identity).unwrap().map(|certificate| certificate.unwrap());
    (chain.collect(), PrivateKeyDer::from_pem_file(identity).unwrap())
}

/// Starts a node that requires a client certificate of the authority. Returns the process and its address.
fn node(folder: &Path, certificates: &Certificates, name: &str) -> (Process, String) {
    let (plain, port) = (free_port(), free_port());
    let identity = certificates.identity(name);
    let (listen, is_real) = if nodes_are_real() { (port, true) } else { (plain, false) };
    let mut command = Command::new(node_program());
    command
        .args(["--env", "development", "--no-analytics", "--http-addr", &format!("127.0.0.1:{listen}")])
        .arg("--db-path")
        .arg(folder.join(name))
        .env("MEILI_MASTER_KEY", MASTER_KEY)
        .env("MEILI_MAX_INDEXING_MEMORY", "512MiB")
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if is_real {
        command.arg("--ssl-cert-path").arg(&identity).arg("--ssl-key-path").arg(&identity);
        command.arg("--ssl-auth-path").arg(certificates.ca()).arg("--ssl-require-auth");
    } else {
        terminate(port, plain, &identity, &certificates.ca());
    }
    (Process(command.spawn().expect("a node")), format!("127.0.0.1:{port}"))
}

/// A TLS proxy in front of a program without TLS. It runs until the test's process ends.
fn terminate(port: u16, plain: u16, identity: &Path, ca: &Path) {
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)), provider.clone()).build().unwrap();
    let (chain, key) = own(identity);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
            let tasks = tokio::task::LocalSet::new();
            tasks
                .run_until(async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let acceptor = acceptor.clone();
                        // A broken connection is noticed by its two ends.
                        tokio::task::spawn_local(async move {
                            let mut stream = acceptor.accept(stream).await?;
                            let mut node = TcpStream::connect(("127.0.0.1", plain)).await?;
                            tokio::io::copy_bidirectional(&mut stream, &mut node).await
                        });
                    }
                })
                .await;
        });
    });
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The answer to a request of a client that trusts the authority; `None` if the connection is refused.
fn get(address: &str, path: &str, bearer: &str, ca: &Path, identity: Option<&Path>) -> Option<String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots(ca));
    let config = match identity.map(own) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {bearer}\r\nconnection: close\r\n\r\n"
    );
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let name = "127.0.0.1".try_into().unwrap();
        let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer =
        runtime().block_on(async { tokio::time::timeout(Duration::from_secs(10), asked).await.unwrap() });
    answer.ok().filter(|answer| !answer.is_empty())
}

/// A cluster whose parts communicate only by TLS.
struct Secured {
    folder: TempDir,
    certificates: Certificates,
    nodes: Vec<(Process, String)>,
    address: String,
    /// The client certificate of gateways and the control plane for nodes, and of gateways for the control plane.
    own: PathBuf,
}

impl Secured {
    fn start() -> Self {
        let folder = scratch();
        let certificates = Certificates::new(&folder.path().join("certificates"));
        let nodes = ["a", "b"].map(|name| node(folder.path(), &certificates, name)).into();
        let own = certificates.identity("gateway");
        Self { address: format!("127.0.0.1:{}", free_port()), folder, certificates, nodes, own }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    /// Starts the control plane.
    fn serve(&self, wasm: &Path) -> Process {
        let log =
            std::fs::File::options().create(true).append(true).open(self.folder.path().join("control.log"));
        let mut command = Command::new(programs().join("miroir"));
        command.args(["serve", "--shards", "4", "--listen", &self.address]).arg("--data").arg(self.data());
        for ((_, address), name) in self.nodes.iter().zip(["a", "b"]) {
            command.args(["--node", &format!("{name}=https://{address}")]);
        }
        let ca = self.certificates.ca();
        for (flag, path) in [
            ("--node-ca", &ca),
            ("--node-identity", &self.own),
            ("--tls-identity", &self.certificates.identity("control")),
            ("--tls-client-ca", &ca),
            ("--tls-ca", &ca),
            ("--gateway-identity", &self.own),
        ] {
            command.arg(flag).arg(path);
        }
        command.arg("--wasm").arg(wasm).env("MIROIR_MASTER_KEY", MASTER_KEY).env_remove("MIROIR_TOKEN");
        Process(command.stdout(Stdio::null()).stderr(log.unwrap()).spawn().expect("miroir"))
    }

    /// Runs a command of an operator.
    fn miroir(&self, arguments: &[&str], identity: Option<&Path>) -> Output {
        let mut command = Command::new(programs().join("miroir"));
        command.args(arguments).args(["--control", &format!("https://{}", self.address)]);
        command.arg("--control-ca").arg(self.certificates.ca()).arg("--data").arg(self.data());
        if let Some(identity) = identity {
            command.arg("--control-identity").arg(identity);
        }
        command.env_remove("MIROIR_TOKEN").output().unwrap()
    }

    fn gateway(&self) -> Envoy {
        Envoy::start(|listen, admin, _| {
            let output = Command::new(programs().join("miroir"))
                .args(["bootstrap", "--name", "secured", "--listen", &format!("127.0.0.1:{listen}")])
                .args(["--admin-port", &admin.to_string(), "--grpc", &self.address])
                .arg("--grpc-ca")
                .arg(self.certificates.ca())
                .arg("--grpc-identity")
                .arg(&self.own)
                .arg("--data")
                .arg(self.data())
                .env_remove("MIROIR_SECRET")
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        })
    }

    fn hits(gateway: &Client) -> usize {
        gateway.search("movies", &json!({"limit": 100}))["hits"].as_array().unwrap().len()
    }
}

pub fn nothing_is_said_in_plain_text_nor_to_strangers() {
    let cluster = Secured::start();
    let operator = cluster.certificates.identity("operator");
    let strangers = Certificates::new(&cluster.folder.path().join("strangers"));
    let stranger = strangers.identity("operator");
    let module = programs().join("../wasm32-wasip1/release/miroir_filter.wasm");
    let control = cluster.serve(&module);
    // The control plane creates its secrets at the first start.
    wait_until("the control plane listens", || cluster.data().join("control.json").exists());
    let gateway = cluster.gateway();
    gateway.wait_ready();
    let document = |id: u64| json!({"id": id, "title": format!("title {id}")});
    gateway.client.create("movies", "id", &json!({"filterableAttributes": ["id"]}));
    gateway.client.add("movies", &json!((0..20).map(document).collect::<Vec<_>>()));
    assert_eq!(Secured::hits(&gateway.client), 20);

    let secrets = std::fs::read(cluster.data().join("secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let token = secrets["adminToken"].as_str().unwrap();
    let ca = cluster.certificates.ca();
    let metrics = |identity: Option<&Path>| get(&cluster.address, "/_miroir/metrics", token, &ca, identity);
    assert!(metrics(Some(&operator)).unwrap().contains("miroir_control_ready 1"));
    for (_, node) in &cluster.nodes {
        let stats = get(node, "/indexes/movies/stats", MASTER_KEY, &ca, Some(&operator)).unwrap();
        assert!(stats.contains("\"numberOfDocuments\":20"), "{stats}");
        assert_eq!(get(node, "/stats", MASTER_KEY, &ca, None), None, "without a certificate");
        assert_eq!(get(node, "/stats", MASTER_KEY, &ca, Some(&stranger)), None);
    }
    assert_eq!(metrics(None), None, "without a certificate");
    assert_eq!(metrics(Some(&stranger)), None);
    let plain = Client::new(format!("http://{}", cluster.address), Some(MASTER_KEY));
    assert!(plain.try_send("GET", "/health", None, Vec::new()).is_err(), "without TLS");
    let status = cluster.miroir(&["status"], Some(&operator));
    let said = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.status.success() && said.contains("secured by gRPC has clusters"), "{status:?}");
    for identity in [None, Some(stranger.as_path())] {
        assert!(!cluster.miroir(&["status"], identity).status.success());
    }

    // Envoy refuses the published configuration: requests are still served, and the command line shows the reason.
    drop(control);
    let control = cluster.serve(Path::new("/nowhere/miroir_filter.wasm"));
    let mut said = String::new();
    wait_until("the command line shows the reason", || {
        let status = cluster.miroir(&["status"], Some(&operator));
        said = String::from_utf8_lossy(&status.stdout).into_owned();
        said.contains("  and refused filter ")
    });
    assert!(said.contains("/nowhere/miroir_filter.wasm"), "{said}");
    assert!(metrics(Some(&operator)).unwrap().contains("miroir_control_subscribers_refusing 1"));
    gateway.wait_for_log("/nowhere/miroir_filter.wasm", |_| assert_eq!(Secured::hits(&gateway.client), 20));
    gateway.client.add("movies", &json!([document(20)]));
    assert_eq!(Secured::hits(&gateway.client), 21);

    // An upgrade: the Wasm module gets another name. Clients must not notice.
    let newer = cluster.folder.path().join("newer.wasm");
    std::fs::copy(module, &newer).unwrap();
    drop(control);
    let _control = cluster.serve(&newer);
    wait_until("the newer module is in force", || {
        assert_eq!(Secured::hits(&gateway.client), 21);
        let status = cluster.miroir(&["status"], Some(&operator));
        let said = String::from_utf8_lossy(&status.stdout).into_owned();
        said.contains("secured by gRPC has clusters")
            && said.contains(", filter ")
            && !said.contains("refused")
    });
    let dump = gateway.admin.get("/config_dump?resource=ecds_filters").body.to_string();
    assert!(dump.contains("newer.wasm") && !dump.contains("nowhere"), "{dump}");
    gateway.client.add("movies", &json!([document(21)]));
    assert_eq!(Secured::hits(&gateway.client), 22);
}
