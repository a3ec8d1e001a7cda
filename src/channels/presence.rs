//! The members of one presence channel (§2.5).

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;

use crate::protocol::{Member, UserId, json};

use super::replica::{Contribution, Position};

/// Users, each with at least one connection somewhere. What the first connection told about a user stays until the last
/// one is gone, so that all clients agree.
#[derive(Debug, Default)]
pub(super) struct Presence {
    /// Whom clients see.
    members: IndexMap<UserId, Member>,
    /// Who is connected here. Alone, these are the members.
    own: HashMap<UserId, Own>,
    /// Of those, who came or went since the cluster was told.
    changed: HashSet<UserId>,
}

#[derive(Debug)]
struct Own {
    member: Member,
    connections: usize,
    /// Since when the cluster counts this node among the user's.
    counted: Option<Position>,
}

impl Presence {
    /// Whether clients see the user.
    pub(super) fn contains(&self, user_id: &UserId) -> bool {
        self.members.contains_key(user_id)
    }

    /// Distinct users.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The ids of all users.
    pub(super) fn user_ids(&self) -> Vec<UserId> {
        self.members.keys().cloned().collect()
    }

    /// One more connection of a user here; true if it is the first.
    pub(super) fn join(&mut self, member: &Member) -> bool {
        let own = self.own.entry(member.user_id.clone());
        let own = own.or_insert_with(|| Own { member: member.clone(), connections: 0, counted: None });
        own.connections += 1;
        own.connections == 1
    }

    /// One connection of a user here less; true if it was the last.
    pub(super) fn leave(&mut self, user_id: &UserId) -> bool {
        let Some(own) = self.own.get_mut(user_id).filter(|own| own.connections > 0) else { return false };
        own.connections -= 1;
        own.connections == 0
    }

    /// Shows a user to clients; false if they see one of that id.
    pub(super) fn add(&mut self, member: Member) -> bool {
        let seen = self.contains(&member.user_id);
        if !seen {
            self.members.insert(member.user_id.clone(), member);
        }
        !seen
    }

    /// Hides a user from clients; false if they see none of that id.
    pub(super) fn remove(&mut self, user_id: &UserId) -> bool {
        self.members.swap_remove(user_id).is_some()
    }

    /// Forgets a user who is not connected here any more.
    pub(super) fn forget(&mut self, user_id: &UserId) {
        if self.own.get(user_id).is_some_and(|own| own.connections == 0) {
            self.own.remove(user_id);
        }
    }

    /// The cluster must hear of a user who came or went.
    pub(super) fn changed(&mut self, user_id: &UserId) {
        self.changed.insert(user_id.clone());
    }

    /// Since when the cluster counts this node among the user's.
    pub(super) fn counted(&self, user_id: &UserId) -> Option<Position> {
        self.own.get(user_id)?.counted
    }

    /// Whether a user is connected here, and the cluster has known.
    pub(super) fn is_here(&self, user_id: &UserId) -> bool {
        self.own.get(user_id).is_some_and(|own| own.connections > 0 && own.counted.is_some())
    }

    /// Adds to a contribution who came and went. If it is the first of a life, the cluster knows nothing of anybody here.
    pub(super) fn contribute(&mut self, contribution: &mut Contribution, begins: bool, fresh: bool) {
        if begins {
            self.own.retain(|_, own| {
                own.counted = None;
                own.connections > 0
            });
            self.changed = self.own.keys().cloned().collect();
        }
        if contribution.again && fresh {
            let others = self.members.values().filter(|member| !self.own.contains_key(&member.user_id));
            contribution.believed = others.cloned().collect();
        }
        for user_id in std::mem::take(&mut self.changed) {
            let Some(own) = self.own.get_mut(&user_id) else { continue };
            match (own.connections > 0, own.counted.is_some()) {
                (true, false) => contribution.joined.push(own.member.clone()),
                (false, true) => {
                    // From here on: whoever joins now comes after this.
                    own.counted = None;
                    contribution.left.push(user_id);
                }
                (false, false) => {
                    self.own.remove(&user_id);
                }
                _ => {}
            }
        }
    }

    /// The cluster has taken note. `refused` are still connected here, and for the caller to send away.
    pub(super) fn contributed(&mut self, contribution: &Contribution, refused: &[UserId], position: Position) {
        for member in contribution.joined.iter().filter(|member| !refused.contains(&member.user_id)) {
            if let Some(own) = self.own.get_mut(&member.user_id) {
                own.counted = Some(position);
                if own.connections == 0 {
                    self.changed.insert(member.user_id.clone());
                }
            }
        }
        for user_id in &contribution.left {
            if self.own.get(user_id).is_some_and(|own| own.connections > 0) {
                self.changed.insert(user_id.clone());
            }
            self.forget(user_id);
        }
    }

    /// Who would have to be added and removed for clients to see exactly these.
    pub(super) fn difference(&self, members: &[Member]) -> (Vec<Member>, Vec<UserId>) {
        let true_ones: HashMap<&UserId, &Member> = members.iter().map(|member| (&member.user_id, member)).collect();
        let gone = self.members.keys().filter(|user_id| !true_ones.contains_key(user_id));
        let new = members.iter().filter(|member| !self.contains(&member.user_id));
        (new.cloned().collect(), gone.cloned().collect())
    }

    /// The data of `subscription_succeeded`: count, ids and infos of everybody.
    pub(super) fn list(&self) -> String {
        let ids: Vec<String> = self.members.keys().map(|id| json::quoted(id.as_str())).collect();
        let infos = ids.iter().zip(self.members.values());
        let infos: Vec<String> = infos.map(|(id, member)| format!("{id}:{}", member.user_info)).collect();
        let (count, ids, hash) = (self.members.len(), ids.join(","), infos.join(","));
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
        assert!(presence.join(&member("7", "1")) && presence.add(member("7", "1")));
        assert!(!presence.join(&member("7", "2")));
        assert!(presence.join(&member("9", "null")) && presence.add(member("9", "null")));
        assert_eq!(presence.list(), r#"{"presence":{"count":2,"ids":["7","9"],"hash":{"7":1,"9":null}}}"#);
        assert!(!presence.leave(&UserId::new("7")));
        assert!(presence.leave(&UserId::new("7")) && presence.remove(&UserId::new("7")));
        assert!(!presence.leave(&UserId::new("7")) && !presence.remove(&UserId::new("7")));
        assert_eq!(presence.len(), 1);
    }

    #[test]
    fn the_cluster_hears_who_came_and_went_and_nothing_of_who_did_both() {
        const HERE: Position = Position { stream: 1, seq: 1, ms: 1 };
        let mut presence = Presence::default();
        let come = |presence: &mut Presence, id| {
            presence.join(&member(id, "1"));
            presence.changed(&UserId::new(id));
        };
        let go = |presence: &mut Presence, id| {
            presence.leave(&UserId::new(id));
            presence.changed(&UserId::new(id));
        };
        let tell = |presence: &mut Presence| {
            let mut contribution = Contribution::default();
            presence.contribute(&mut contribution, false, false);
            contribution
        };
        come(&mut presence, "7");
        come(&mut presence, "8");
        go(&mut presence, "8");
        let first = tell(&mut presence);
        assert_eq!((first.joined.len(), first.left.len()), (1, 0));
        // Gone and back while it is under way.
        go(&mut presence, "7");
        come(&mut presence, "7");
        presence.contributed(&first, &[], HERE);
        assert_eq!(tell(&mut presence), Contribution::default());
        // Gone while it is under way.
        go(&mut presence, "7");
        let second = tell(&mut presence);
        assert_eq!(second.left, [UserId::new("7")]);
        come(&mut presence, "7");
        assert_eq!(presence.counted(&UserId::new("7")), None, "it comes after it went");
        presence.contributed(&second, &[], HERE);
        assert_eq!(tell(&mut presence).joined.len(), 1);
    }

    #[test]
    fn an_empty_list_has_an_object() {
        assert_eq!(Presence::default().list(), r#"{"presence":{"count":0,"ids":[],"hash":{}}}"#);
    }
}
