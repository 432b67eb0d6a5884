//! The plans of a request's statements, as PostgreSQL reports them (`auto_explain`), and what they cost.

use reqwest::StatusCode;

use crate::support::{
    client::{Client, answer},
    process::Process,
    system::{System, eventually},
};

/// A trace whose requests have a line in the log.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A `serve` that prints the plan of every statement.
pub struct Explained {
    serve: Process,
    client: Client,
}

impl Explained {
    pub async fn start(system: &System) -> Self {
        let explain = format!(
            "alter database {name} set session_preload_libraries = auto_explain; \
             alter database {name} set auto_explain.log_min_duration = 0; \
             alter database {name} set auto_explain.log_level = notice; \
             alter database {name} set auto_explain.log_analyze = on; \
             alter database {name} set auto_explain.log_buffers = on",
            name = system.database.name
        );
        system.execute(&explain).await;
        let serve = system.process("serve", &["--listen", "127.0.0.1:0"]);
        let client = Client::new(&format!("http://127.0.0.1:{}", serve.says("server listen at :").await));
        Self { serve, client }
    }

    /// What is printed during a request.
    pub async fn plans(&self, path: &str) -> String {
        let before = self.serve.printed().len();
        let request = self.client.get(path).header("traceparent", TRACE);
        assert_eq!(answer(request).await.0, StatusCode::OK, "{path}");
        let since = || self.serve.printed()[before..].to_owned();
        // The line of a traced request follows the plans.
        eventually("the line of the request", async || since().contains(TRACE)).await;
        since()
    }

    pub async fn end(self) {
        drop(self.client);
        assert!(self.serve.end("-TERM").await.success());
    }
}

/// The sum of the blocks that the top nodes of all plans report.
pub fn blocks(plans: &str) -> u64 {
    let of_plan = |plan: &str| -> u64 {
        let buffers = plan.lines().find_map(|line| line.trim().strip_prefix("Buffers: shared "));
        let words = buffers.unwrap_or_default().split([' ', '=']).collect::<Vec<_>>();
        let of = |name| words.windows(2).find(|pair| pair[0] == name);
        ["hit", "read"].iter().filter_map(|name| of(*name)?[1].parse::<u64>().ok()).sum()
    };
    plans.split("plan:").skip(1).map(of_plan).sum()
}
