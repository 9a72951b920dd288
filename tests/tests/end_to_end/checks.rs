//! Checks that share a cluster: each has indexes of its own, leaves every process running, and finds no index of another.
//!
//! An Envoy takes seconds of a processor to compile the filter: one for each check would be most of the time of `make test`.

use crate::{
    all_or_nothing, api, attacks, bad_input, broken_nodes, cluster, depth, durable, export, fields,
    first_payloads, payloads, reads, same_bytes, settings_changing, similar, verdicts, webhooks, writes,
};
use miroir_tests::{Client, Node, Options, Sandbox};

/// Does one after another, and deletes the indexes that each has left.
pub fn all<Check>(clients: &[&Client], checks: &[Check], run: impl Fn(&Check)) {
    for check in checks {
        run(check);
        for client in clients {
            let indexes = client.get("/indexes?limit=1000").body;
            for index in indexes["results"].as_array().unwrap() {
                let path = format!("/indexes/{}", index["uid"].as_str().unwrap());
                client.succeeded(&client.send("DELETE", &path, None, ""));
            }
        }
    }
}

/// A check of a cluster.
pub type Check = fn(&Sandbox);
type Comparison = fn(&Sandbox, &Node);

#[test]
fn reads_are_those_of_one_node() {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    let checks: [Comparison; 6] = [
        similar::similar_needs_the_right_to_search_only,
        depth::hybrid_searches_are_decided_over_all_nodes,
        depth::deep_pages_of_federated_searches_and_lists_are_those_of_one_node,
        bad_input::bad_input_is_answered_as_by_one_node_and_harms_nobody,
        reads::totals_stop_where_those_of_one_node_do,
        reads::a_cluster_answers_as_one_node_does_and_goes_on_when_a_node_dies,
    ];
    all(&[&cluster.client, &node.client], &checks, |check| check(&cluster, &node));
}

#[test]
fn answers_have_the_bytes_of_one_node() {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    let checks: [Comparison; 6] = [
        same_bytes::what_nothing_tells_apart_comes_in_the_order_of_one_node,
        same_bytes::fields_of_meilisearchs_own_names_come_back_and_sort,
        same_bytes::order_never_depends_on_what_is_shown,
        same_bytes::facets_are_those_of_one_node,
        same_bytes::types_and_compressions_of_bodies_are_those_of_one_node,
        same_bytes::edges_of_requests_are_those_of_one_node,
    ];
    all(&[&cluster.client, &node.client], &checks, |check| check(&cluster, &node));
}

#[test]
fn writes_are_those_of_one_node() {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    let checks: [Comparison; 2] = [
        // It compares tasks, so that it comes first.
        api::every_route_is_what_the_table_says,
        payloads::a_cluster_takes_and_refuses_what_one_node_does,
    ];
    all(&[&cluster.client, &node.client], &checks, |check| check(&cluster, &node));
    let checks: [Check; 4] = [
        writes::every_form_of_a_payload_is_written_to_every_replica,
        writes::a_large_payload_is_split_and_counted_once,
        writes::what_meilisearch_refuses_is_refused_in_its_words_and_nothing_is_written,
        writes::a_worker_holds_what_has_come_and_slow_uploads_hold_up_nobody,
    ];
    all(&[&cluster.client], &checks, |check| check(&cluster));
}

#[test]
fn fields_are_those_of_one_node() {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    let checks: [Comparison; 7] = [
        fields::a_condition_finds_what_it_finds_on_one_node_whoever_has_seen_its_field,
        fields::what_writes_by_a_condition_writes_the_same_on_all_replicas,
        fields::a_deletion_right_behind_the_first_document_with_a_field_knows_it,
        fields::documents_show_their_fields_in_the_order_of_one_node,
        fields::odd_names_and_many_fields_are_those_of_one_node,
        fields::fields_follow_their_index_wherever_it_goes,
        fields::settings_and_fields_may_change_at_once,
    ];
    all(&[&cluster.client, &node.client], &checks, |check| check(&cluster, &node));
}

#[test]
fn verdicts_are_those_of_one_node() {
    let (cluster, node) = (Sandbox::start(Options::default()), Node::start());
    let checks: [Comparison; 6] = [
        first_payloads::what_comes_first_decides_as_on_one_node,
        all_or_nothing::an_edit_that_fails_for_one_document_edits_none,
        all_or_nothing::a_deletion_with_an_id_that_no_node_takes_deletes_none,
        verdicts::what_one_node_refuses_no_node_keeps,
        verdicts::a_new_name_stays_where_a_new_key_is_refused,
        verdicts::what_follows_a_refused_change_is_kept,
    ];
    all(&[&cluster.client, &node.client], &checks, |check| check(&cluster, &node));
    all(&[&cluster.client], &[all_or_nothing::an_edit_keeps_its_place as Check], |check| check(&cluster));
}

#[test]
fn a_cluster_is_one_meilisearch() {
    let cluster = Sandbox::start(Options::default());
    let checks: [Check; 14] = [
        cluster::indexes_settings_and_statistics_show_nothing_of_the_shards,
        cluster::clients_have_no_business_with_internal_routes,
        cluster::the_command_line_prints_tables,
        webhooks::ended_tasks_are_posted_once,
        webhooks::webhooks_do_not_reach_private_addresses,
        export::an_export_sends_every_document_once,
        settings_changing::reads_say_that_settings_are_changing,
        depth::a_deep_page_moves_its_own_documents_only,
        depth::a_deep_page_of_vectors_moves_its_own_documents_only,
        reads::all_pages_of_a_query_hold_every_document_once_whatever_the_ties,
        attacks::a_path_leads_nowhere_that_a_key_may_not_go,
        attacks::names_of_the_clusters_own_keys_are_refused,
        attacks::the_tag_is_out_of_reach_however_it_is_spelt,
        attacks::strangers_hold_up_nobody_who_writes,
    ];
    all(&[&cluster.client], &checks, |check| check(&cluster));
}

#[test]
fn a_cluster_goes_on_without_parts_of_it() {
    let cluster = Sandbox::start(Options::default());
    let checks: [Check; 5] = [
        cluster::an_invalid_topology_is_refused_and_the_last_good_one_stays,
        cluster::without_its_control_plane_a_cluster_is_read_and_writes_can_be_tried_again,
        cluster::a_node_that_dies_is_read_no_more_where_it_missed_a_write_and_is_repaired,
        broken_nodes::a_node_that_freezes_is_waited_for_moments_only,
        writes::bodies_are_taken_whatever_a_listener_buffers,
    ];
    all(&[&cluster.client], &checks, |check| check(&cluster));
}

#[test]
fn writes_are_durable() {
    let cluster = durable::cluster(1);
    let checks: [Check; 6] = [
        durable::a_client_that_leaves_tears_nothing,
        durable::a_task_that_fails_on_one_node_only_is_mended,
        durable::a_client_that_leaves_and_a_new_configuration_tear_nothing,
        durable::a_slow_upload_holds_up_nobody,
        durable::a_node_is_killed_while_it_takes_a_write,
        durable::the_control_plane_is_killed_between_begin_and_commit,
    ];
    all(&[&cluster.client], &checks, |check| check(&cluster));
}
