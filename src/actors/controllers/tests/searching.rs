//! Who is asked, and when another is looked for: in paused time.

use futures_util::future::join_all;
use tokio::time::{Instant, pause};

use super::super::member::Member;
use super::super::search::Search;
use super::*;

fn among(doubles: &[&Double]) -> Controllers {
    let members = doubles.iter().zip(1..).map(|(double, node)| Member::here(NodeId(node), start(double).into()));
    Controllers::over(Search::new(members.collect(), None))
}

const SECOND: Duration = Duration::from_secs(1);

#[actix::test]
async fn whoever_decides_is_found_without_waiting_for_those_that_do_not_answer() {
    pause();
    let (hangs, follows, decides) = (Double::new(true, 4), Double::new(false, 4), Double::new(true, 4));
    hangs.set(|part| part.hangs = true);
    let controllers = among(&[&hangs, &follows, &decides]);
    assert_eq!(controllers.decides(), None);
    let began = Instant::now();
    assert_eq!(controllers.ask(stopping(1), SECOND).await, Ok(None));
    assert!(began.elapsed() < Duration::from_millis(10), "{:?}", began.elapsed());
    assert_eq!((decides.heard(), controllers.decides()), (vec![stopping(1)], Some(NodeId(3))));
    // It is known from then on.
    assert_eq!(controllers.ask(stopping(1), SECOND).await, Ok(None));
    assert_eq!(decides.get(|part| (part.heard.len(), part.searches)), (2, 1));
}

#[actix::test]
async fn a_change_of_office_is_followed_and_the_one_before_is_not_believed_again() {
    pause();
    let [first, second] = [Double::new(true, 4), Double::new(false, 4)];
    let controllers = among(&[&first, &second]);
    controllers.ask(stopping(1), SECOND).await.expect("heard");
    first.set(|part| part.decides = false);
    second.set(|part| (part.decides, part.term) = (true, 5));
    controllers.ask(stopping(2), SECOND).await.expect("heard");
    assert_eq!((second.heard(), controllers.decides()), (vec![stopping(2)], Some(NodeId(2))));
    // Cut off for a while, the first believes again that it decides, and answers first. Both are asked who does.
    second.set(|part| part.answer = Err(not_controller()));
    first.set(|part| part.decides = true);
    let refused = controllers.ask(stopping(3), Duration::from_millis(200)).await.expect_err("the second does not");
    assert_eq!(refused.code, ErrorCode::NotController);
    assert!(!first.heard().contains(&stopping(3)), "of an older term");
    second.set(|part| part.answer = Ok(None));
    controllers.ask(stopping(4), SECOND).await.expect("heard");
    assert!(second.heard().contains(&stopping(4)));
    // Whoever decided last is gone: an older term is better than none.
    second.set(|part| part.hangs = true);
    controllers.ask(stopping(5), 5 * SECOND).await.expect("heard");
    assert!(first.heard().contains(&stopping(5)));
}

#[actix::test]
async fn while_nobody_decides_a_request_waits_and_its_error_names_everybody() {
    pause();
    let [one, other] = [Double::new(false, 4), Double::new(false, 4)];
    other.set(|part| part.hangs = true);
    let controllers = among(&[&one, &other]);
    let began = Instant::now();
    let error = controllers.ask(stopping(1), SECOND).await.expect_err("nobody decides");
    let waited = began.elapsed();
    assert!((SECOND * 9 / 10..SECOND * 11 / 10).contains(&waited), "{waited:?}");
    assert_eq!(error.code, ErrorCode::NotController);
    for part in ["within 1000 ms", "node 1, this one: does not decide", "node 2, this one: the controller here did not"]
    {
        assert!(error.message.contains(part), "{error}");
    }
    // An election ends meanwhile.
    let asked = actix_rt::spawn(async move { controllers.create_topics(create("a")).await });
    tokio::time::sleep(Duration::from_millis(400)).await;
    one.set(|part| (part.decides, part.term) = (true, 5));
    assert_eq!(asked.await.expect("no panic").expect("created").index, 5);
}

fn create(name: &str) -> CreateTopics {
    CreateTopics { topics: vec![wanted(name)], validate_only: false }
}

#[actix::test]
async fn all_who_wait_share_one_search() {
    pause();
    let [one, other] = [Double::new(false, 4), Double::new(true, 4)];
    let controllers = among(&[&one, &other]);
    let asked = join_all((0..20).map(|_| controllers.ask(stopping(1), SECOND))).await;
    assert!(asked.iter().all(Result::is_ok));
    assert_eq!([&one, &other].map(|double| double.get(|part| part.searches)), [1, 1]);
    // Likewise when nobody is found.
    other.set(|part| part.decides = false);
    let asked = join_all((0..20).map(|_| controllers.ask(stopping(1), Duration::from_millis(60)))).await;
    assert!(asked.iter().all(Result::is_err));
    assert!(one.get(|part| part.searches) <= 4, "{}", one.get(|part| part.searches));
}

#[actix::test]
async fn what_may_have_been_done_is_repeated_only_where_that_is_harmless() {
    pause();
    let [stuck, next] = [Double::new(true, 4), Double::new(false, 4)];
    let controllers = among(&[&stuck, &next]);
    controllers.ask(stopping(1), SECOND).await.expect("heard");
    stuck.set(|part| part.is_stuck = true);
    let error = controllers.create_topics(create("a")).await.expect_err("nobody knows");
    assert_eq!(error.code, ErrorCode::TimedOut);
    assert!(error.message.contains("whether it was done is not known"), "{error}");
    // A report is made again, to whoever decides by then.
    stuck.set(|part| part.hangs = true);
    next.set(|part| (part.decides, part.term) = (true, 5));
    controllers.ask(stopping(2), 5 * SECOND).await.expect("heard");
    assert_eq!(next.heard(), [stopping(2)]);
    // One that ends in the middle of it has perhaps done it.
    next.set(|part| part.answer = Err(ApiError::new(ErrorCode::ShuttingDown, "ended")));
    let error = controllers.create_topics(create("a")).await.expect_err("nobody knows");
    assert_eq!(error.code, ErrorCode::TimedOut, "{error}");
}

#[actix::test]
async fn what_the_sole_controller_says_is_passed_on_as_it_is() {
    pause();
    let double = Double::new(true, 1);
    let controllers = Controllers::alone(NodeId(7), start(&double));
    assert_eq!(controllers.decides(), Some(NodeId(7)));
    for code in [ErrorCode::StorageFailed, ErrorCode::ShuttingDown, ErrorCode::TopicExists] {
        double.set(|part| part.answer = Err(ApiError::new(code, "so it is")));
        assert_eq!(controllers.create_topics(create("a")).await, Err(ApiError::new(code, "so it is")));
        assert_eq!(controllers.ask(stopping(1), SECOND).await, Err(ApiError::new(code, "so it is")));
    }
    assert_eq!(double.get(|part| part.searches), 0);
}

#[actix::test]
async fn whoever_follows_a_controller_that_fell_silent_goes_on_at_the_next() {
    pause();
    let [first, second] = [Double::new(true, 4), Double::new(false, 4)];
    let controllers = among(&[&first, &second]);
    controllers.ask(stopping(1), SECOND).await.expect("heard");
    first.set(|part| part.is_stuck = true);
    let known = Arc::new(ClusterImage::empty(CLUSTER));
    let (waiting, image) = (controllers.clone(), Arc::clone(&known));
    let followed = actix_rt::spawn(async move { waiting.follow(follow_from(0, 60 * SECOND), &image).await });
    tokio::task::yield_now().await;
    let newer = Arc::new(ClusterImage { index: 9, ..ClusterImage::clone(&known) });
    first.set(|part| part.hangs = true);
    second.set(|part| (part.decides, part.term, part.news.image) = (true, 5, newer));
    let began = Instant::now();
    // A renewal notices.
    controllers.ask(stopping(1), 5 * SECOND).await.expect("heard");
    assert_eq!(followed.await.expect("no panic").expect("news").image.index, 9);
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    // Metadata here never goes back.
    let newest = Arc::new(ClusterImage { index: 10, ..ClusterImage::clone(&known) });
    let error = controllers.follow(follow_from(10, Duration::ZERO), &newest).await.expect_err("older");
    assert!(error.message.contains("has the metadata up to 9 only, this node up to 10"), "{error}");
}
