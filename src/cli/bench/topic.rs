//! The topic of a bench: created for it and deleted afterwards, or one that exists and stays.

use std::sync::Arc;

use super::args::CommonArgs;
use crate::cli::error::CliError;
use crate::cli::progress::print_line;
use crate::client::{Admin, Client};
use crate::protocol::messages::{NewTopic, OffsetAt};
use crate::types::Offset;

/// Batches of 10,000 records of 1 KiB fit, and a frame still holds one.
const MAX_BATCH_BYTES: &str = "15728640";

/// The topic that a bench sends to.
#[derive(Debug)]
pub struct BenchTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions.
    pub partitions: u32,
    /// What administers it.
    pub admin: Admin,
    is_temporary: bool,
}

impl BenchTopic {
    /// Creates it, or looks the one up that is to be used.
    ///
    /// # Errors
    /// When the node refuses, or does not know the topic.
    pub async fn open(client: &Client, args: &CommonArgs) -> Result<Self, CliError> {
        let admin = client.admin();
        let Some(existing) = &args.topic else { return Self::create(admin, args).await };
        let known = admin.metadata(Some(std::slice::from_ref(existing))).await?.topics.into_iter().next();
        let unknown = || CliError::Failed(format!("the cluster said nothing about topic '{existing}'"));
        let topic = known.ok_or_else(unknown)?.topic.into_result();
        let topic =
            topic.map_err(|error| CliError::Refused { what: format!("topic '{existing}' cannot be used"), error })?;
        let partitions = u32::try_from(topic.partitions.len()).unwrap_or(u32::MAX);
        Ok(Self { name: existing.as_str().into(), partitions, admin, is_temporary: false })
    }

    async fn create(admin: Admin, args: &CommonArgs) -> Result<Self, CliError> {
        let name = format!("bench-{}", uuid::Uuid::new_v4().as_simple());
        let config = [("flush", args.flush.setting()), ("max_batch_bytes", MAX_BATCH_BYTES)];
        let topic = NewTopic {
            name: name.clone(),
            partitions: Some(args.partitions),
            replication_factor: None,
            config: config.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        };
        let created = admin.create_topics(&[topic], false).await?.into_iter().next();
        let silent = || CliError::Failed("the cluster did not say what became of the topic".to_owned());
        created
            .ok_or_else(silent)?
            .map_err(|error| CliError::Refused { what: format!("topic '{name}' was not created"), error })?;
        Ok(Self { name: name.into(), partitions: args.partitions, admin, is_temporary: !args.keep })
    }

    /// Where each partition ends now.
    ///
    /// # Errors
    /// When a leader does not answer.
    pub async fn ends(&self) -> Result<Vec<Offset>, CliError> {
        let places: Vec<_> = (0..self.partitions).map(|n| (self.name.to_string(), n, OffsetAt::Latest)).collect();
        let listed = self.admin.list_offsets(&places).await?;
        let refused = |error| CliError::Refused { what: format!("offsets of topic '{}'", self.name), error };
        let ends = listed.into_iter().map(|each| Ok(each.map_err(refused)?.offset.unwrap_or_default()));
        ends.collect()
    }

    /// Deletes it if it was created for this bench. A failure is told, and fails nothing: the figures stand.
    pub async fn close(self) {
        if !self.is_temporary {
            return;
        }
        let deleted = self.admin.delete_topics(&[self.name.to_string()]).await;
        let problem = match deleted {
            Err(error) => error.to_string(),
            Ok(each) => match each.into_iter().find_map(Result::err) {
                None => return,
                Some(error) => error.to_string(),
            },
        };
        print_line(&format!("warning: topic {} is left behind: {problem}", self.name));
    }
}
