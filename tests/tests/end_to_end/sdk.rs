//! Published client libraries call all their functions on a cluster and on a single node. The results must be the same.

mod rust;

use miroir_tests::{MASTER_KEY, Node, Options, Sandbox};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The output of a client's script, with one line per call, for cluster and node.
fn transcripts(command: impl Fn() -> Command) -> [Vec<String>; 2] {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    let running = [cluster.client.url(), node.client.url()].map(|url| {
        let mut command = command();
        command.args([url, MASTER_KEY]).arg(root().join(".tools/sdk"));
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("its interpreter: run `make test`")
    });
    running.map(|process| {
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    })
}

/// Cuts off the ids in errors that name documents: each node names only its own.
fn comparable(line: &str) -> &str {
    line.split("no vectors provided for document").next().unwrap_or(line)
}

fn same(transcripts: [Vec<String>; 2], calls: usize) {
    let [cluster, node] = transcripts;
    let pairs = cluster.iter().zip(&node);
    let wrong: Vec<String> = pairs
        .filter(|(cluster, node)| comparable(cluster) != comparable(node))
        .map(|(cluster, node)| format!("cluster {cluster}\nnode    {node}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cluster.len(), node.len());
    assert!(node.len() >= calls, "{}", node.len());
}

pub fn the_python_client_cannot_tell_a_cluster_from_a_node() {
    let python = || {
        let mut command = Command::new(root().join(".venv/bin/python"));
        command.arg(root().join("tests/sdk/python.py"));
        command
    };
    same(transcripts(python), 205);
}

pub fn the_javascript_client_cannot_tell_a_cluster_from_a_node() {
    let node = || {
        let mut command = Command::new("node");
        command.arg(root().join("tests/sdk/javascript.mjs"));
        command
    };
    same(transcripts(node), 120);
}

pub fn the_rust_client_cannot_tell_a_cluster_from_a_node() {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    let drive = |url| rust::drive(url, MASTER_KEY);
    let transcripts = std::thread::scope(|scope| {
        let running = [cluster.client.url(), node.client.url()].map(|url| scope.spawn(move || drive(url)));
        running.map(|running| running.join().unwrap())
    });
    same(transcripts, 200);
}
