//! Which checks there are, what they share, and what each takes: seconds of one of four at once, on two processors.

use crate::{
    all_or_nothing, api, attacks, bad_input, broken_nodes, chaos, cluster, crash_points, crashes, dates,
    depth, durable, equivalence, equivalence::Twins, exhaustion, export, fields, first_payloads,
    fixtures::ClusterChecks, fixtures::Compared, fixtures::Comparisons, fixtures::Library, freed_names, grow,
    late_bodies, mesh, missing_shards, neighbours, one_order, operations, payloads, reads, restore, rules,
    same_bytes, sdk, seen, settings_changing, similar, stale_in_index, starts, survive, told, verdicts,
    webhooks, writes, zones,
};
use miroir_tests::{Options, Sandbox, trials::Trials};

/// A cluster as most tests have it.
fn cluster() -> Sandbox {
    Sandbox::start(Options::default())
}

pub fn add_all(trials: &mut Trials) {
    compare_with_one_node(trials);
    of_one_cluster(trials);
    of_libraries(trials);
    mesh::trials(trials);
    exhaustion::trials(trials);
    with_clusters_of_their_own(trials);
}

fn compare_with_one_node(trials: &mut Trials) {
    trials
        .sharing(Twins::start)
        .check(29, equivalence::a_cluster_cannot_be_told_from_one_node)
        .check(6, equivalence::refusals_cannot_be_told_from_those_of_one_node)
        .check(8, equivalence::a_cluster_without_one_node_cannot_be_told_from_one_node)
        .check(24, equivalence::a_cluster_with_extra_copies_cannot_be_told_from_one_node)
        .check(1, equivalence::what_sharding_cannot_make_exact_agrees_as_far_as_it_can);
    trials
        .sharing(Compared::start)
        .comparison(13, similar::similar_needs_the_right_to_search_only)
        .comparison(3, depth::hybrid_searches_are_decided_over_all_nodes)
        .comparison(47, depth::deep_pages_of_federated_searches_and_lists_are_those_of_one_node)
        .comparison(4, bad_input::bad_input_is_answered_as_by_one_node_and_harms_nobody)
        .comparison(1, reads::totals_stop_where_those_of_one_node_do)
        .comparison(8, reads::a_cluster_answers_as_one_node_does_and_goes_on_when_a_node_dies);
    trials
        .sharing(Compared::start)
        // They compare batches, so that they come first.
        .comparison(11, told::batches_are_told_as_by_one_node)
        .comparison(2, told::settings_are_told_as_clients_wrote_them)
        .comparison(13, same_bytes::what_nothing_tells_apart_comes_in_the_order_of_one_node)
        .comparison(2, same_bytes::fields_of_meilisearchs_own_names_come_back_and_sort)
        .comparison(4, same_bytes::order_never_depends_on_what_is_shown)
        .comparison(15, same_bytes::facets_are_those_of_one_node)
        .comparison(10, same_bytes::types_and_compressions_of_bodies_are_those_of_one_node)
        .comparison(2, same_bytes::edges_of_requests_are_those_of_one_node);
    trials
        .sharing(Compared::start)
        // They compare tasks, so that they come first.
        .comparison(21, api::keys_that_lack_a_right_are_told_what_one_node_tells)
        .comparison(3, api::small_keys_get_no_further_however_a_path_is_spelt)
        .comparison(7, api::http_is_spoken_as_by_one_node)
        .comparison(6, api::what_makes_no_sense_is_refused_as_by_one_node)
        .comparison(6, api::every_route_is_what_the_table_says)
        .comparison(11, payloads::payloads_of_json_are_taken_and_refused_as_by_one_node)
        .comparison(5, payloads::tables_and_lines_are_taken_and_refused_as_by_one_node)
        .comparison(3, payloads::parameters_and_headers_are_taken_and_refused_as_by_one_node)
        .comparison(12, payloads::deletions_and_edits_are_taken_and_refused_as_by_one_node)
        .comparison(13, payloads::what_settings_of_an_index_refuse_is_refused_as_by_one_node)
        .comparison(1, payloads::the_key_comes_before_the_payload)
        .comparison(2, payloads::edits_by_function_leave_the_tag_alone)
        .of_cluster(4, writes::every_form_of_a_payload_is_written_to_every_replica)
        .of_cluster(5, writes::a_large_payload_is_split_and_counted_once)
        .of_cluster(3, writes::what_meilisearch_refuses_is_refused_in_its_words_and_nothing_is_written)
        .of_cluster(3, writes::a_worker_holds_what_has_come_and_slow_uploads_hold_up_nobody);
    trials
        .sharing(Compared::start)
        .comparison(22, fields::a_condition_finds_what_it_finds_on_one_node_whoever_has_seen_its_field)
        .comparison(11, fields::what_writes_by_a_condition_writes_the_same_on_all_replicas)
        .comparison(6, fields::a_deletion_right_behind_the_first_document_with_a_field_knows_it)
        .comparison(1, fields::documents_show_their_fields_in_the_order_of_one_node)
        .comparison(39, fields::odd_names_and_many_fields_are_those_of_one_node)
        .comparison(3, fields::fields_follow_their_index_wherever_it_goes)
        .comparison(3, fields::settings_and_fields_may_change_at_once);
    trials
        .sharing(Compared::start)
        .comparison(13, first_payloads::what_comes_first_decides_as_on_one_node)
        .comparison(2, all_or_nothing::an_edit_that_fails_for_one_document_edits_none)
        .comparison(5, all_or_nothing::a_deletion_with_an_id_that_no_node_takes_deletes_none)
        .comparison(7, verdicts::what_one_node_refuses_no_node_keeps)
        .comparison(1, verdicts::a_new_name_stays_where_a_new_key_is_refused)
        .comparison(6, freed_names::what_takes_a_freed_name_is_as_on_one_node)
        .comparison(4, verdicts::what_follows_a_refused_change_is_kept)
        .of_cluster(3, all_or_nothing::an_edit_keeps_its_place);
}

fn of_one_cluster(trials: &mut Trials) {
    trials
        .sharing(cluster)
        // It looks at all tasks, so that it comes first.
        .check(8, cluster::indexes_settings_and_statistics_show_nothing_of_the_shards)
        .check(1, cluster::clients_have_no_business_with_internal_routes)
        .check(1, cluster::the_command_line_prints_tables)
        .check(1, webhooks::ended_tasks_are_posted_once)
        .check(1, webhooks::webhooks_do_not_reach_private_addresses)
        .check(1, export::an_export_sends_every_document_once)
        .check(2, settings_changing::reads_say_that_settings_are_changing)
        .check(4, depth::a_deep_page_moves_its_own_documents_only)
        .check(3, depth::a_deep_page_of_vectors_moves_its_own_documents_only)
        .check(1, reads::all_pages_of_a_query_hold_every_document_once_whatever_the_ties)
        .check(8, attacks::a_path_leads_nowhere_that_a_key_may_not_go)
        .check(1, attacks::names_of_the_clusters_own_keys_are_refused)
        .check(4, attacks::the_tag_is_out_of_reach_however_it_is_spelt)
        .check(1, attacks::strangers_hold_up_nobody_who_writes);
    trials
        .sharing(cluster)
        .check(7, cluster::an_invalid_topology_is_refused_and_the_last_good_one_stays)
        .check(1, cluster::without_its_control_plane_a_cluster_is_read_and_writes_can_be_tried_again)
        .check(3, cluster::a_node_that_dies_is_read_no_more_where_it_missed_a_write_and_is_repaired)
        .check(5, broken_nodes::a_node_that_freezes_is_waited_for_moments_only)
        .check(5, writes::bodies_are_taken_whatever_a_listener_buffers);
    trials
        .sharing(|| durable::cluster(1))
        .check(10, durable::a_client_that_leaves_tears_nothing)
        .check(5, durable::a_task_that_fails_on_one_node_only_is_mended)
        .check(4, durable::a_client_that_leaves_and_a_new_configuration_tear_nothing)
        .check(2, durable::a_slow_upload_holds_up_nobody)
        .check(3, durable::a_node_is_killed_while_it_takes_a_write)
        .check(5, durable::the_control_plane_is_killed_between_begin_and_commit)
        .check(20, late_bodies::a_body_that_comes_after_the_decision_is_mended)
        .check(20, late_bodies::a_body_that_comes_after_a_restart_is_mended);
    trials
        .sharing(|| durable::cluster(2))
        .check(30, durable::a_gateway_is_killed_between_begin_and_commit)
        .check(8, durable::a_callout_that_comes_late_changes_nothing)
        .check(11, durable::a_gateway_sleeps_through_the_recovery_of_its_write);
    trials
        .sharing(cluster)
        .check(30, verdicts::a_refused_operation_is_undone_whoever_is_killed)
        .check(25, freed_names::a_node_that_dies_in_an_operation_has_what_the_others_have)
        .check(11, verdicts::edits_are_whole_whoever_is_killed)
        .check(57, verdicts::a_refused_operation_is_undone_on_a_node_that_was_away);
    trials
        .sharing(crash_points::cluster)
        .check(9, crash_points::writes)
        .check(9, crash_points::first_writes)
        .check(9, crash_points::deletions)
        .check(9, crash_points::creations)
        .check(9, crash_points::swaps)
        .check(9, crash_points::renames);
    trials
        .sharing(crash_points::cluster)
        .check(9, crash_points::settings)
        .check(7, crash_points::keys)
        .check(9, crash_points::dumps)
        .check(14, crash_points::hand_overs)
        .check(14, crash_points::moves)
        .check(14, crash_points::drains);
    trials
        .sharing(seen::cluster)
        .check(37, seen::settings_that_have_succeeded_are_seen_at_every_gateway)
        .check(20, seen::indexes_come_and_go_at_every_gateway)
        .check(2, seen::keys_come_and_go_at_every_gateway);
}

fn of_libraries(trials: &mut Trials) {
    trials
        .sharing(|| Library::start(2, 2, 1))
        .of_cluster(10, operations::copies_that_differ_are_found_and_mended)
        .of_cluster(1, operations::a_node_that_lost_its_disk_gets_everything_again)
        .of_cluster(5, operations::mistakes_are_refused_and_change_nothing);
    trials
        .sharing(|| Library::start(3, 2, 2))
        .of_cluster(17, survive::a_gateway_that_slept_reads_and_writes_nothing_that_has_left)
        .of_cluster(4, survive::a_gateway_that_slept_reads_no_copy_that_has_missed_something);
}

fn with_clusters_of_their_own(trials: &mut Trials) {
    trials
        .alone(43, crashes::whoever_crashes_in_the_middle_of_an_operation_it_goes_on)
        .alone(30, grow::nobody_notices)
        .alone(28, chaos::nothing_acknowledged_is_lost)
        .alone(30, stale_in_index::an_index_at_rest_is_whole_while_nodes_die_one_after_the_other)
        .alone(12, stale_in_index::a_node_that_was_away_for_seconds_is_whole_at_once)
        .alone(30, stale_in_index::an_index_that_a_replica_misses_something_of_is_swapped_renamed_and_deleted)
        .alone(20, stale_in_index::nodes_that_miss_documents_find_their_index_made_anew_or_are_lost)
        .alone(14, operations::a_node_is_added_drained_and_removed)
        .alone(14, operations::a_node_is_replaced_and_another_is_lost)
        .alone(18, operations::a_file_says_what_the_cluster_is_to_be)
        .alone(17, operations::a_lost_ledger_is_made_again)
        .alone(20, starts::a_lost_node_can_be_told_before_the_cluster_is_ready)
        .alone(45, starts::what_is_there_is_served_without_a_node)
        .alone(15, starts::damaged_and_second_ledgers_are_refused)
        .alone(15, starts::copies_of_the_ledger_are_refused)
        .alone(15, all_or_nothing::settings_that_a_document_contradicts_wait_for_its_node)
        .alone(8, starts::a_node_of_another_cluster_does_not_join)
        .alone(19, survive::a_cluster_that_is_killed_while_it_grows_comes_back)
        .alone(18, survive::of_three_replicas_any_two_may_die)
        .alone(13, survive::a_node_that_envoy_does_not_reach_takes_nothing)
        .alone(25, durable::a_new_topology_takes_no_write_from_a_client_that_left)
        .alone(13, broken_nodes::what_a_broken_node_does_not_answer_is_asked_of_other_replicas)
        .alone(10, broken_nodes::a_read_that_nobody_answers_ends_at_its_deadline)
        .alone(25, neighbours::clients_on_different_indexes_do_not_notice_each_other)
        .alone(19, one_order::copies_are_the_same_whatever_comes_at_the_same_time)
        .alone(16, sdk::the_python_client_cannot_tell_a_cluster_from_a_node)
        .alone(15, sdk::the_javascript_client_cannot_tell_a_cluster_from_a_node)
        .alone(19, sdk::the_rust_client_cannot_tell_a_cluster_from_a_node)
        .alone(12, dates::all_nodes_tell_the_same_dates_of_an_index)
        .alone(13, restore::a_cluster_comes_back_from_its_dumps)
        .alone(11, restore::a_cluster_comes_back_from_its_snapshots)
        .alone(9, missing_shards::a_partial_answer_names_the_missing_shards_and_has_all_others)
        .alone(12, zones::reads_stay_in_the_gateways_zone_while_its_nodes_have_every_shard)
        .alone(10, missing_shards::an_answer_that_would_be_partial_is_an_error_where_that_is_wanted)
        .alone(17, cluster::data_survives_a_restart_and_nothing_survives_the_playground)
        .alone(
            if miroir_tests::nodes_are_real() { 30 } else { 1 },
            rules::pinned_documents_are_where_one_node_has_them,
        );
}
