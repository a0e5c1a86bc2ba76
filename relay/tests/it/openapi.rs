//! The committed description of the interface.

use claudenest_relay::http::openapi::document_json;

#[test]
fn the_committed_document_is_fresh() {
    let committed = include_str!("../../openapi.json");
    assert!(
        committed == document_json(),
        "relay/openapi.json is stale; run: cargo run -p claudenest-relay -- openapi > relay/openapi.json"
    );
}

#[tokio::test]
async fn the_document_and_its_page_are_served_without_anything_from_elsewhere() {
    let relay = crate::harness::Relay::new().await;
    let document = relay.call(axum::http::Method::GET, "/api/openapi.json", None).await;
    assert_eq!(document.body["info"]["title"], "ClaudeNest relay");
    let page = relay.call(axum::http::Method::GET, "/docs/", None).await;
    let text = page.body.as_str().unwrap();
    assert!(text.contains("swagger-ui") && !text.contains("://"), "{text}");
    // The policy of the relay forbids inline scripts; the page must do without.
    assert!(!text.contains("<script>"), "{text}");
}
