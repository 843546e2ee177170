//! A file for each promise.

mod a_credential_goes_only_to_its_own_hosts;
mod a_nonce_opens_only_what_it_was_minted_for;
mod a_refusal_tells_the_truth_and_helps;
mod dead_means_dead;
mod every_decision_is_on_record;
mod nothing_fails_open;
mod the_agent_never_sees_a_real_credential;
mod what_we_were_not_asked_to_change_is_not_changed;
