//! The members of one presence channel (§2.5).

use indexmap::IndexMap;

use crate::protocol::{Member, UserId, json};

/// Users, each with at least one connection. What the first connection told about a user stays until the last one is
/// gone, so that all clients agree.
#[derive(Debug, Default)]
pub(super) struct Presence(IndexMap<UserId, Present>);

#[derive(Debug)]
struct Present {
    member: Member,
    connections: usize,
}

impl Presence {
    /// Whether the user is here already.
    pub(super) fn contains(&self, user_id: &UserId) -> bool {
        self.0.contains_key(user_id)
    }

    /// Distinct users.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The ids of all users.
    pub(super) fn user_ids(&self) -> Vec<UserId> {
        self.0.keys().cloned().collect()
    }

    /// One more connection of a user; true if it is the first.
    pub(super) fn join(&mut self, member: &Member) -> bool {
        let present = self.0.entry(member.user_id.clone());
        let present = present.or_insert_with(|| Present { member: member.clone(), connections: 0 });
        present.connections += 1;
        present.connections == 1
    }

    /// One connection of a user less; true if it was the last.
    pub(super) fn leave(&mut self, user_id: &UserId) -> bool {
        let Some(present) = self.0.get_mut(user_id) else { return false };
        present.connections -= 1;
        let gone = present.connections == 0;
        if gone {
            self.0.swap_remove(user_id);
        }
        gone
    }

    /// The data of `subscription_succeeded`: count, ids and infos of everybody.
    pub(super) fn list(&self) -> String {
        let ids: Vec<String> = self.0.keys().map(|id| json::quoted(id.as_str())).collect();
        let infos = ids.iter().zip(self.0.values());
        let infos: Vec<String> = infos.map(|(id, present)| format!("{id}:{}", present.member.user_info)).collect();
        let (count, ids, hash) = (self.0.len(), ids.join(","), infos.join(","));
        format!(r#"{{"presence":{{"count":{count},"ids":[{ids}],"hash":{{{hash}}}}}}}"#)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, info: &str) -> Member {
        Member { user_id: UserId::new(id), user_info: info.into() }
    }

    #[test]
    fn a_user_comes_once_and_goes_once() {
        let mut presence = Presence::default();
        assert!(presence.join(&member("7", "1")));
        assert!(!presence.join(&member("7", "2")));
        assert!(presence.join(&member("9", "null")));
        assert_eq!(presence.list(), r#"{"presence":{"count":2,"ids":["7","9"],"hash":{"7":1,"9":null}}}"#);
        assert!(!presence.leave(&UserId::new("7")));
        assert!(presence.leave(&UserId::new("7")));
        assert!(!presence.leave(&UserId::new("7")));
        assert_eq!(presence.len(), 1);
    }

    #[test]
    fn an_empty_list_has_an_object() {
        assert_eq!(Presence::default().list(), r#"{"presence":{"count":0,"ids":[],"hash":{}}}"#);
    }
}
