//! While the settings of an index change, reads of the index say so, because some nodes may have the old settings and others
//! the new ones.

use crate::missing_shards::reads;
use miroir_tests::{Sandbox, wait_until};
use serde_json::json;

const HEADER: &str = "x-miroir-settings-changing";

pub fn reads_say_that_settings_are_changing(cluster: &Sandbox) {
    let client = &cluster.client;
    client.create("things", "id", &json!({"filterableAttributes": ["rank", "kind"]}));
    client.create("others", "id", &json!({"filterableAttributes": ["rank"]}));
    let others = || client.json("POST", "/indexes/others/search", &json!({"filter": "rank > 1"}));
    let said = || reads(client).into_iter().filter(|(_, answer)| answer.header(HEADER).is_some()).count();
    wait_until("no read says that settings change", || said() == 0);

    // Nodes handle these documents before the settings, which gives the test time.
    let document =
        |id: u64| json!({"id": id, "rank": id, "kind": "one", "text": format!("the {id}th of many")});
    let documents = json!((0..8_000).map(document).collect::<Vec<_>>());
    let added = client.json("POST", "/indexes/things/documents", &documents);
    let accepted = client.json("PUT", "/indexes/things/settings/searchable-attributes", &json!(["kind"]));
    wait_until("reads say that settings change", || said() > 0);
    let answers = reads(client);
    let apart = others();
    let task = client.get(&format!("/tasks/{}", accepted.body["taskUid"])).body;
    assert_ne!(task["status"], "succeeded", "the settings task was too fast for this test");
    for (route, answer) in answers {
        assert_eq!((answer.status, answer.header(HEADER)), (200, Some("things")), "{route}");
    }
    assert_eq!((apart.status, apart.header(HEADER)), (200, None), "{}", apart.body);

    client.succeeded(&added);
    client.succeeded(&accepted);
    wait_until("reads no longer say that settings change", || said() == 0);
    assert_eq!(client.search("things", &json!({"q": "many"}))["hits"], json!([]));

    // A refused change does not count as changing settings.
    let refused = client.json("PUT", "/indexes/things/settings/searchable-attributes", &json!(7));
    assert_eq!(refused.status, 400, "{}", refused.body);
    wait_until("a refused change is not announced", || said() == 0);
}
