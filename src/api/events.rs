//! Publishing (§4.4, §4.5, §4.10).

use std::sync::Arc;

use hyper::StatusCode;

use crate::channels::Occupancy;
use crate::node::{Node, Target, Trigger};
use crate::protocol::EventData;

use super::error::ApiError;
use super::params::{Info, Params};
use super::signed::Signed;
use super::{Reply, channels, object};

/// `POST /apps/{id}/events`: one event to one or many channels.
pub(super) async fn trigger(node: &Arc<Node>, signed: &Signed<'_>) -> Result<Reply, ApiError> {
    let known = ["name", "data", "channel", "channels", "channels[]", "socket_id", "info"];
    let params = Params::read(&signed.body, &signed.query, &known)?;
    let limits = &signed.tenant.app.config().limits;
    let (event, data, targets, except) =
        (params.event_name(limits)?, params.data()?, params.targets(limits)?, params.except()?);
    let info = params.info()?;
    let trigger = Trigger { event, data, targets, except, asks: info.is_some() };
    let reach = publish(node, signed, std::slice::from_ref(&trigger)).await?;
    let Some(info) = info else { return Ok(Reply::empty(StatusCode::OK)) };
    let channels = trigger.targets.iter().zip(&reach);
    let channels = channels.map(|(target, reach)| (name_of(target), attributes(target, reach, info)));
    Ok(Reply::ok(object([("channels", object(channels))])))
}

/// `POST /apps/{id}/batch_events`: several events, each to one channel; all or none.
pub(super) async fn trigger_batch(node: &Arc<Node>, signed: &Signed<'_>) -> Result<Reply, ApiError> {
    let batch = Params::read_batch(&signed.body, &signed.query)?;
    let limits = &signed.tenant.app.config().limits;
    if batch.is_empty() {
        return Err(ApiError::Empty("batch"));
    }
    if batch.len() > limits.events_per_batch {
        return Err(ApiError::TooManyEvents(limits.events_per_batch));
    }
    let (mut triggers, mut infos) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    for params in batch {
        let params = params?;
        let (event, data, target, except) =
            (params.event_name(limits)?, params.data()?, params.target(limits)?, params.except()?);
        let info = params.info()?;
        triggers.push(Trigger { event, data, targets: vec![target], except, asks: info.is_some() });
        infos.push(info);
    }
    let reach = publish(node, signed, &triggers).await?;
    if infos.iter().all(Option::is_none) {
        return Ok(Reply::empty(StatusCode::OK));
    }
    // Each has one target.
    let targets = triggers.iter().flat_map(|trigger| &trigger.targets).zip(&reach);
    let answers = targets.zip(infos).map(|((target, reach), info)| attributes(target, reach, info.unwrap_or_default()));
    let answers: Vec<String> = answers.collect();
    Ok(Reply::ok(object([("batch", format!("[{}]", answers.join(",")))])))
}

/// `POST /apps/{id}/channels/{channel}/events`: the old form, where the body is the data.
pub(super) async fn trigger_raw(node: &Arc<Node>, signed: &Signed<'_>, channel: &str) -> Result<Reply, ApiError> {
    let params = Params::read(&[], &signed.query, &["name", "socket_id"])?;
    let limits = &signed.tenant.app.config().limits;
    let data = std::str::from_utf8(&signed.body).map_err(|_| ApiError::Type("data", "UTF-8 text"))?;
    let trigger = Trigger {
        event: params.event_name(limits)?,
        data: EventData::from_text(data),
        targets: vec![super::params::parse_target(channel, limits)?],
        except: params.except()?,
        asks: false,
    };
    publish(node, signed, &[trigger]).await?;
    Ok(Reply::empty(StatusCode::ACCEPTED))
}

/// Checks what concerns all events together, then publishes them in order. Returns who is there, target by target.
async fn publish(node: &Arc<Node>, signed: &Signed<'_>, triggers: &[Trigger<'_>]) -> Result<Vec<Occupancy>, ApiError> {
    let tenant = &signed.tenant;
    let limit = tenant.app.config().limits.event_data;
    if triggers.iter().any(|trigger| trigger.data.length() > limit) {
        return Err(ApiError::DataTooLarge(limit));
    }
    let messages = triggers.iter().map(|trigger| trigger.targets.len() as u64).sum();
    if !tenant.app.take_messages(messages, signed.date) {
        return Err(ApiError::MessageQuota);
    }
    Ok(node.trigger(tenant, triggers, signed.now).await?)
}

fn name_of(target: &Target) -> &str {
    match target {
        Target::Channel(name) => name.as_str(),
        Target::User(id) => id.as_str(),
    }
}

/// What an answer tells about a channel. Attributes that do not apply are left out, and a user has none.
fn attributes(target: &Target, reach: &Occupancy, info: Info) -> String {
    match target {
        Target::Channel(name) => object(channels::counts(name, reach, info)),
        Target::User(_) => "{}".to_owned(),
    }
}
