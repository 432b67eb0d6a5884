//! Reads the operations of a batch, and notes every fault in them. Must not contain what is done with them.

use std::collections::{HashMap, HashSet};

use actix_web::HttpRequest;
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{BatchRequest, Fault, OPERATIONS_MAX, OperationRequest};
use crate::{
    domain::{
        self, Actor, Change, Delta, IdempotencyKey, Invalid, Members, Object, Points, RequestId, TraceParent,
        UserId,
    },
    http::{
        admission,
        error::ApiError,
        points::{IDEMPOTENCY_KEY, header_text, now},
        traffic,
    },
};

/// An operation that was read.
pub(super) struct Operation {
    pub(super) delta: Delta,
    /// Its idempotency key, if it has one: the client can then send it again.
    pub(super) key: Option<KeyOf>,
}

/// Where the idempotency key of an operation stands.
pub(super) enum KeyOf {
    /// In the operation.
    Operation,
    /// In the header of the batch.
    Batch,
}

/// Returns the operations of a batch, or every fault in it.
pub(super) fn parse(body: &[u8], request: &HttpRequest) -> Result<Vec<Operation>, ApiError> {
    let members = Members::<BatchRequest>::read(body)?;
    if let Some(name) = members.unknown() {
        return Err(ApiError::invalid(name, "is not a field of a batch, which takes operations"));
    }
    let batch_key = header_text(request, IDEMPOTENCY_KEY)?.map(IdempotencyKey::new).transpose()?;
    let operations =
        members.get("operations").ok_or_else(|| ApiError::invalid("operations", "is required"))?;
    let rule =
        || ApiError::invalid("operations", format!("must be an array of 1 to {OPERATIONS_MAX} elements"));
    let operations: Vec<&RawValue> = serde_json::from_str(operations.get()).map_err(|_| rule())?;
    if operations.is_empty() || operations.len() > OPERATIONS_MAX {
        return Err(rule());
    }
    let (actor, trace, requested_at) = (admission::actor(request), traffic::trace(request), now());
    let mut batch = Batch { actor, trace, requested_at, key: batch_key, of_users: HashMap::new() };
    let (mut faults, mut ids) = (Vec::new(), HashSet::new());
    let mut parsed = Vec::with_capacity(operations.len());
    for (index, operation) in operations.iter().enumerate() {
        let mut judge = Judge { index, faults: Vec::new() };
        if let Some(operation) = judge.operation(&mut batch, operation) {
            if !ids.insert((operation.delta.user_id.clone(), operation.delta.request_id)) {
                judge.fault("/key", "is the key of an earlier operation for this user");
            }
            parsed.push(operation);
        }
        faults.extend(judge.faults);
    }
    if faults.is_empty() { Ok(parsed) } else { Err(ApiError::InvalidOperations(faults)) }
}

/// What the operations of a batch share.
struct Batch<'a> {
    actor: Option<Actor>,
    trace: Option<TraceParent>,
    requested_at: Timestamp,
    key: Option<IdempotencyKey<'a>>,
    /// The number of operations so far of each user.
    of_users: HashMap<UserId, usize>,
}

impl Batch<'_> {
    fn request_id(&mut self, user_id: &UserId, key: Option<IdempotencyKey>) -> RequestId {
        let nth = self.of_users.entry(user_id.clone()).or_default();
        *nth += 1;
        match (key, &self.key) {
            (Some(key), _) => RequestId::from_key(self.actor.as_ref(), user_id, &key),
            (None, Some(key)) => RequestId::from_batch_key(self.actor.as_ref(), user_id, key, *nth - 1),
            (None, None) => RequestId::random(),
        }
    }
}

/// Reads one operation and notes its faults.
struct Judge {
    index: usize,
    faults: Vec<Fault>,
}

impl Judge {
    fn operation(&mut self, batch: &mut Batch, operation: &RawValue) -> Option<Operation> {
        let members = Members::<OperationRequest>::read(operation.get().as_bytes());
        let members = members.map_err(|why| self.fault("", &format!("is not valid: {why}"))).ok()?;
        if let Some(name) = members.unknown() {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            let known = OperationRequest::MEMBERS.join(", ");
            self.fault(&pointer, &format!("is not a field of an operation, which takes {known}"));
        }
        let action = self.note(members.required("action"));
        let user_id: Option<UserId> = self.note(members.required("user_id"));
        let change = action.map(|action| Change::read(action, &members));
        let change = change.unwrap_or_else(|| Err(badly_formed(&members)));
        let change = change.map_err(|faults| self.note_all(faults)).ok();
        let change = change.and_then(|change| self.note(change.in_time(batch.requested_at)));
        let reason = self.note(members.optional("reason")).flatten();
        let metadata = self.note(members.optional("metadata")).flatten();
        let key = members.get("key").map(|key| domain::text(key.get()).unwrap_or_default());
        let key = key.as_deref().map(IdempotencyKey::new).transpose();
        let key = key.map_err(|invalid| self.fault("/key", &invalid.rule)).ok().flatten();
        let (user_id, change) = (user_id?, change?);
        let of_batch = batch.key.as_ref().map(|_| KeyOf::Batch);
        let key_of = key.as_ref().map(|_| KeyOf::Operation).or(of_batch);
        let delta = Delta {
            request_id: batch.request_id(&user_id, key),
            user_id,
            change,
            actor: batch.actor.clone(),
            reason,
            metadata,
            requested_at: batch.requested_at,
            traceparent: batch.trace.clone(),
        };
        Some(Operation { delta, key: key_of })
    }

    fn note<T>(&mut self, parsed: Result<T, Invalid>) -> Option<T> {
        parsed.map_err(|invalid| self.fault(&format!("/{}", invalid.field), &invalid.rule)).ok()
    }

    fn note_all(&mut self, faults: Vec<Invalid>) {
        for invalid in faults {
            self.fault(&format!("/{}", invalid.field), &invalid.rule);
        }
    }

    /// `pointer` is relative to the operation.
    fn fault(&mut self, pointer: &str, detail: &str) {
        let pointer = format!("/operations/{}{pointer}", self.index);
        self.faults.push(Fault { pointer, detail: detail.to_owned() });
    }
}

/// The faults that do not depend on the action.
fn badly_formed(members: &Members<OperationRequest>) -> Vec<Invalid> {
    let faults = [
        members.optional::<Points>("point").err(),
        members.optional::<RequestId>("request").err(),
        members.optional::<UserId>("to").err(),
        members.optional::<RequestId>("hold").err(),
        members.optional::<Timestamp>("expires_at").err(),
        members.flag("partial").err(),
    ];
    faults.into_iter().flatten().collect()
}
