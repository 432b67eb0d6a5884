//! Servers that refuse wrong names and passwords. The log says what to check, but never shows the password.

use crate::support::system::System;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_for_the_broker_is_named_and_not_shown() {
    let system = System::new().await;
    let mut url = url::Url::parse(&system.amqp_url).expect("a valid URL");
    url.set_password(Some("wr0ng-hush")).expect("a password");
    // RabbitMQ takes three seconds to refuse a password.
    let work = system.process("work", &["--amqp-url", url.as_str(), "--startup-timeout", "8s"]);
    let (status, log) = work.ends().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("check the user, the password and the virtual host"), "{log}");
    assert!(!log.contains("hush"), "{log}");
    system.finish_without_queues().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_whom_the_database_does_not_know_is_named() {
    let system = System::new().await;
    let mut url = url::Url::parse(&system.database.url).expect("a valid URL");
    url.set_username("nobody_we_know").expect("a user");
    url.set_password(Some("wr0ng-hush")).expect("a password");
    let work = system.process("work", &["--database-url", url.as_str(), "--startup-timeout", "3s"]);
    let (status, log) = work.ends().await;
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("nobody_we_know") && log.contains("PostgreSQL at "), "{log}");
    assert!(!log.contains("hush"), "{log}");
    system.finish_without_queues().await;
}
