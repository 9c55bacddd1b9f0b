//! Changes that a node makes to itself alone, so that a cluster in which they are made at one node is of two
//! kinds until the others are restarted.
//!
//! `pm` installs, enables and removes plugins (server/plugin-manager/options/resource.ts); a restore replaces
//! the database under the other nodes (plugin-backups, plugin-backup-restore); `app:restart` and
//! `app:refresh` act on the node that is asked (plugin-client/server/server.ts).

use super::Action;
use super::action::action;

/// Actions of `pm` that only look, beside those that read on every resource.
const LOOKING: [&str; 1] = ["npmVersionList"];
/// Resources whose backups can be restored.
const BACKUPS: [&str; 3] = ["backups", "backup", "backupFiles"];
/// Actions of these that restore one.
const RESTORING: [&str; 2] = ["restore", "restoreUpload"];
/// Actions of `app` that restart or reload the application at the node.
const RESTARTING: [&str; 2] = ["restart", "refresh"];

/// The action of a request, if it changes the node that runs it and no other.
#[must_use]
pub fn changes_one_node<'a>(method: &str, target: &'a str, api_path: &str) -> Option<Action<'a>> {
    action(method, target, api_path).filter(|action| match action.resource {
        "pm" => !action.reads() && !LOOKING.contains(&action.action),
        "app" => RESTARTING.contains(&action.action),
        resource => BACKUPS.contains(&resource) && RESTORING.contains(&action.action),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_one_node_are_known_and_nothing_else_is() {
        for (method, target, changes) in [
            ("POST", "/api/pm:enable?filterByTk=x", true),
            ("POST", "/api/pm:disable/x", true),
            ("POST", "/api/pm:add", true),
            ("POST", "/api/pm:update", true),
            ("POST", "/api/pm:remove", true),
            ("GET", "/api/pm:enable", true),
            ("POST", "/api/pm:novel", true),
            ("POST", "/api/pm", true),
            ("POST", "/api/__app/hr/pm:enable", true),
            ("GET", "/api/pm:list", false),
            ("GET", "/api/pm", false),
            ("GET", "/api/pm:listEnabledV2", false),
            ("GET", "/api/pm:get", false),
            ("GET", "/api/pm:npmVersionList/x", false),
            ("POST", "/api/backups:restore", true),
            ("POST", "/api/backup:restoreUpload", true),
            ("POST", "/api/backupFiles:restore", true),
            ("POST", "/api/backups:create", false),
            ("GET", "/api/backups:restoreStatus", false),
            ("POST", "/api/app:restart", true),
            ("POST", "/api/app:refresh", true),
            ("GET", "/api/app:getInfo", false),
            ("POST", "/api/app:clearCache", false),
            ("POST", "/api/posts:restore", false),
            ("POST", "/pm:enable", false),
        ] {
            assert_eq!(changes_one_node(method, target, "/api/").is_some(), changes, "{target}");
        }
    }
}
