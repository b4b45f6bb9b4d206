use std::time::Duration;

use tokio::net::TcpListener;

use super::broker::{FakeBroker, Fault};
use super::{config, eventually, soon, start};
use crate::client::{Client, ClientConfig, ClientError, ConsumerConfig, OutgoingRecord, ProducerConfig, StartAt};

#[tokio::test]
async fn the_error_of_an_unreachable_cluster_names_every_address_and_why() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent_address = silent.local_addr().unwrap().to_string();
    let config = ClientConfig::new(format!("{gone}, {silent_address}")).connect_timeout(Duration::from_millis(100));
    let error = soon(Client::connect(config)).await.expect_err("nobody answers");
    let text = error.to_string();
    assert!(text.contains(&gone) && text.contains("refused"), "{text}");
    assert!(text.contains(&silent_address) && text.contains("no answer within 100 ms"), "{text}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn the_second_bootstrap_address_is_used_when_the_first_is_dead() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let broker = FakeBroker::start().await;
    let client =
        soon(Client::connect(ClientConfig::new(format!("{gone},{}", broker.address())))).await.expect("connects");
    assert_eq!(client.cluster_id().0.as_u128(), 7);
}

#[tokio::test]
async fn a_parked_fetch_holds_up_nothing() {
    let (broker, client) = start(1).await;
    let mut consumer =
        client.consumer(ConsumerConfig::default().max_wait(Duration::from_secs(3))).await.expect("starts");
    consumer.assign("rides", None, StartAt::Earliest).await.expect("assigned");
    eventually("the fetch is parked", || !broker.state().fetches.is_empty()).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    let delivery = producer.send(OutgoingRecord::to("rides").value("x")).await.expect("taken");
    assert_eq!(soon(delivery).await.expect("delivered").offset.map(|offset| offset.0), Some(0));
    assert_eq!(soon(consumer.recv()).await.expect("read").value.as_deref(), Some(b"x".as_ref()));
}

#[tokio::test]
async fn a_lost_connection_is_opened_again() {
    let (broker, client) = start(1).await;
    let before = broker.state().connections;
    broker.hang_up();
    eventually("a request succeeds again", || true).await;
    let names = soon(client.admin().list_topics()).await.expect("asked over a new connection");
    assert_eq!(names, ["rides"]);
    assert!(broker.state().connections > before);
}

#[tokio::test]
async fn a_request_that_is_never_answered_ends_at_its_timeout_and_with_the_connection() {
    let (broker, _) = start(1).await;
    let client = Client::connect(config(&broker).request_timeout(Duration::from_millis(100))).await.expect("connects");
    broker.on_produce([Fault::Ignore]);
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    let delivery = producer.send(OutgoingRecord::to("rides").value("x")).await.expect("taken");
    // The retry goes over a new connection.
    assert_eq!(soon(delivery).await.expect("delivered").offset.map(|offset| offset.0), Some(0));
    assert_eq!(broker.state().produce_requests, 2);
    assert_eq!(producer.stats().retries, 1);
}

#[tokio::test]
async fn a_topic_that_nobody_knows_is_an_error_that_says_how_to_create_it() {
    let (_broker, client) = start(1).await;
    let producer = client.producer(ProducerConfig::default()).await.expect("starts");
    let error = soon(producer.send(OutgoingRecord::to("riddes").value("x"))).await.expect_err("no such topic");
    assert_eq!(error, ClientError::UnknownTopic { topic: "riddes".into() });
    assert!(error.to_string().contains("callboard topic create riddes"));
    let error =
        producer.send(OutgoingRecord::to("rides").partition(9).value("x")).await.expect_err("no such partition");
    assert_eq!(error.to_string(), "topic 'rides' has no partition 9: it has 1, numbered from 0");
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused() {
    let (_broker, client) = start(1).await;
    let error = client.producer(ProducerConfig::default().max_in_flight(6)).await.expect_err("too many");
    assert!(error.to_string().contains("max_in_flight"), "{error}");
    let config = ProducerConfig::default().acks(crate::client::Acks::Leader).idempotence(true);
    assert!(client.producer(config).await.expect_err("needs acks = all").to_string().contains("idempotence"));
}
