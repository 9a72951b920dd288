//! `miroir verify` and `miroir repair`.

use super::{QueryArgs, client, operate};
use crate::base::output::say;
use crate::{
    api::{
        admin::Status,
        operations::{RepairRequest, VerifyRequest},
    },
    base::{
        config::Pace,
        error::{Error, Result},
        table::table,
    },
    membership::plan::Plan,
    verify::{Difference, Findings, MisplacedDocument, SilentReplica},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use std::collections::{BTreeMap, BTreeSet};

/// Number of shards per request.
const TOGETHER: usize = 8;

/// Flags of `miroir repair`.
#[derive(Clone, Debug, clap::Args)]
pub struct RepairArgs {
    /// Name of the node whose copies are wrong; without it, copies that differ from the majority are wrong
    #[arg(long)]
    pub node: Option<String>,
    /// Only print what would be rebuilt
    #[arg(long)]
    pub dry_run: bool,
    /// The limits on copying.
    #[command(flatten)]
    pub pace: Pace,
    /// The control plane to use
    #[command(flatten)]
    pub query: QueryArgs,
}

/// Runs `miroir verify`: compares all copies.
///
/// # Errors
/// Some copies differ or are misplaced, or a replica's node is unreachable.
pub async fn verify(args: &QueryArgs) -> Result<()> {
    let findings = compare(args).await?;
    show(args, &findings)?;
    let (differ, misplaced) = (findings.differences.len(), findings.misplaced.len());
    if differ + misplaced > 0 {
        return Err(Error::Other(format!(
            "{differ} document(s) differ, {misplaced} are misplaced: run `miroir repair`"
        )));
    }
    if !findings.silent.is_empty() {
        let count = findings.silent.len();
        return Err(Error::Other(format!(
            "{count} replica(s) were not compared: their nodes are unreachable"
        )));
    }
    Ok(())
}

/// The documents of these differences, by index, each once.
fn documents_of(differences: &[&Difference]) -> String {
    let mut documents: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for difference in differences {
        documents.entry(&difference.index).or_default().insert(&difference.id);
    }
    let of_index = |(index, ids): (&str, BTreeSet<&str>)| {
        format!("{} of index `{index}`", ids.into_iter().collect::<Vec<_>>().join(", "))
    };
    documents.into_iter().map(of_index).collect::<Vec<_>>().join("; ")
}

/// Runs `miroir repair`: rebuilds wrong copies, and deletes misplaced documents.
///
/// # Errors
/// It is unknown which copies are wrong, or the control plane does not answer.
pub async fn repair(args: &RepairArgs) -> Result<()> {
    let findings = compare(&args.query).await?;
    let (wrong, unknown) = judge(&findings.differences, args.node.as_deref());
    if !args.query.json {
        show(&args.query, &findings)?;
    }
    if !unknown.is_empty() {
        return Err(Error::Other(format!(
            "there is no majority among the copies of {}: name the node whose copies are wrong with --node NAME",
            documents_of(&unknown)
        )));
    }
    let of =
        |document: &MisplacedDocument| SilentReplica { shard: document.shard, node: document.node.clone() };
    let misplaced: BTreeSet<SilentReplica> = findings.misplaced.iter().map(of).collect();
    let repair = RepairRequest {
        replicas: wrong.into_iter().collect(),
        misplaced: misplaced.into_iter().collect(),
        pace: args.pace,
    };
    if args.query.json {
        say!("{}", serde_json::to_string_pretty(&repair)?);
    } else {
        let verb = if args.dry_run { "would rebuild" } else { "rebuilding" };
        say!("{verb} {} replica(s)", repair.replicas.len());
        if !findings.misplaced.is_empty() {
            let verb = if args.dry_run { "would delete" } else { "deleting" };
            say!("{verb} {} misplaced document(s)", findings.misplaced.len());
        }
    }
    if args.dry_run || repair.replicas.len() + repair.misplaced.len() == 0 {
        return Ok(());
    }
    let plan = Plan { replicas: repair.replicas.len(), deleted: repair.misplaced.len(), ..Plan::default() };
    let _: RepairRequest = client::post(&args.query, "/_miroir/repair", &repair).await?;
    operate::wait(&args.query, &plan).await
}

/// The replicas that are wrong, and the documents for which that is unknown.
fn judge<'a>(
    differences: &'a [Difference],
    node: Option<&str>,
) -> (BTreeSet<SilentReplica>, Vec<&'a Difference>) {
    let mut wrong = BTreeSet::new();
    let mut unknown = Vec::new();
    for difference in differences {
        let of = |node: &NodeName| SilentReplica { shard: difference.shard, node: node.clone() };
        match node {
            Some(node) if difference.copies.contains_key(node) => {
                wrong.insert(of(&node.into()));
            }
            _ if difference.odd.is_empty() => unknown.push(difference),
            _ => wrong.extend(difference.odd.iter().map(of)),
        }
    }
    (wrong, unknown)
}

async fn compare(args: &QueryArgs) -> Result<Findings> {
    let status: Status = client::get(args, "/_miroir/status").await?;
    let shards = (0..u16::try_from(status.shards).unwrap_or(u16::MAX)).map(Shard);
    let shards: Vec<Shard> = shards.collect();
    let bar = operate::progress_bar("shards", status.shards as u64);
    let mut findings = Findings::default();
    for shards in shards.chunks(TOGETHER) {
        let found: Findings =
            client::post(args, "/_miroir/verify", &VerifyRequest { shards: shards.to_vec() }).await?;
        findings.copies += found.copies;
        findings.differences.extend(found.differences);
        findings.silent.extend(found.silent);
        findings.misplaced.extend(found.misplaced);
        bar.inc(shards.len() as u64);
        bar.set_message(format!("{} copies, {} differ", findings.copies, findings.differences.len()));
    }
    bar.finish_and_clear();
    Ok(findings)
}

fn show(args: &QueryArgs, findings: &Findings) -> Result<()> {
    if args.json {
        say!("{}", serde_json::to_string_pretty(findings)?);
        return Ok(());
    }
    if !findings.differences.is_empty() {
        let mut rows = table(&["index", "shard", "id", "copies"]);
        for difference in &findings.differences {
            let copy = |(node, hash): (&NodeName, &Option<String>)| {
                format!("{node}: {}", hash.as_deref().unwrap_or("missing"))
            };
            let copies: Vec<String> = difference.copies.iter().map(copy).collect();
            rows.add_row([
                difference.index.clone(),
                difference.shard.0.to_string(),
                difference.id.clone(),
                copies.join("\n"),
            ]);
        }
        say!("{rows}");
    }
    if !findings.misplaced.is_empty() {
        let mut rows = table(&["index", "shard", "id", "misplaced on"]);
        for document in &findings.misplaced {
            rows.add_row([
                document.index.as_str(),
                &document.shard.0.to_string(),
                &document.id,
                &document.node,
            ]);
        }
        say!("{rows}");
    }
    say!(
        "{} copies of documents compared, {} documents differ, {} are misplaced",
        findings.copies,
        findings.differences.len(),
        findings.misplaced.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_wrong_is_the_minority_or_who_is_said_to_be() {
        let difference = |copies: &[&str], odd: &[&str]| Difference {
            index: "books".into(),
            shard: Shard(3),
            id: "1".into(),
            copies: copies.iter().map(|node| ((*node).into(), None)).collect(),
            odd: odd.iter().map(|node| (*node).into()).collect(),
        };
        let three = [difference(&["a", "b", "c"], &["c"])];
        let two = [difference(&["a", "b"], &[])];
        let wrong = |node: &str| BTreeSet::from([SilentReplica { shard: Shard(3), node: node.into() }]);
        assert_eq!(judge(&three, None).0, wrong("c"));
        assert_eq!(judge(&three, Some("a")).0, wrong("a"));
        assert_eq!(judge(&two, None).1.len(), 1);
        assert_eq!(judge(&two, Some("b")).0, wrong("b"));
        assert_eq!(judge(&two, Some("c")).1.len(), 1);
    }
}
