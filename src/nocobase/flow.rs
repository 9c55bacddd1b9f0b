//! Flows that live in the memory of one node: whoever follows up elsewhere finds nothing.
//!
//! Backups keep their tasks in the process that runs them, and uploads for a restore in its temporary
//! folder; `logger` tells of the node that is asked; answers of AI employees are resumed from a cache that is
//! in memory unless Redis is configured (plugin-ai, `ai-llm-stream-cache`); `pm` and `app` change the
//! node that is asked, and the others stay as they are until they are restarted.

use super::Action;

/// A kind of flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Backups and restores, of an app.
    Backup,
    /// Lists of log files and their contents, of an app.
    Logs,
    /// Conversations with AI employees, of a session.
    Conversation,
    /// Plugins, restarts and caches: all that the session does afterwards.
    Admin,
}

/// Actions of backups, beside those that read, after which nothing has to come to the same node.
const ENDING_BACKUPS: [&str; 2] = ["destroy", "download"];
/// Actions that make an AI employee answer.
const SPEAKING: [&str; 4] =
    ["resendMessages", "resumeToolCall", "sendMessages", "updateUserDecision"];
/// Actions of `app` that act on the node that is asked.
const CHANGING_APP: [&str; 3] = ["clearCache", "refresh", "restart"];
/// Actions of `pm` that do.
const CHANGING_PLUGINS: [&str; 5] = ["add", "disable", "enable", "remove", "update"];

impl Flow {
    /// What distinguishes one such flow from another beside the app: who asks.
    #[must_use]
    pub fn is_of_a_session(self) -> bool {
        matches!(self, Flow::Conversation | Flow::Admin)
    }

    /// Whether following up is a part of work that runs at the node, which a drained node finishes.
    #[must_use]
    pub fn runs_on(self) -> bool {
        matches!(self, Flow::Backup | Flow::Conversation)
    }
}

impl Action<'_> {
    /// The flow that a request belongs to, and whether what follows must come to its node.
    #[must_use]
    pub fn flow(&self) -> Option<(Flow, bool)> {
        match self.resource {
            "backups" | "backup" => {
                let ends = self.reads() || ENDING_BACKUPS.contains(&self.action);
                Some((Flow::Backup, !ends))
            }
            "logger" => Some((Flow::Logs, self.action == "list")),
            "aiConversations" if self.action == "resumeStream" => Some((Flow::Conversation, false)),
            "aiConversations" if SPEAKING.contains(&self.action) => {
                Some((Flow::Conversation, true))
            }
            "pm" if CHANGING_PLUGINS.contains(&self.action) => Some((Flow::Admin, true)),
            "app" if CHANGING_APP.contains(&self.action) => Some((Flow::Admin, true)),
            _ => None,
        }
    }

    /// Exports and imports, of which a process does one at a time (plugin-action-export, plugin-action-import).
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        self.action.starts_with("export") || self.action.starts_with("import")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nocobase::action;

    fn flow(target: &str) -> Option<(Flow, bool)> {
        action("POST", target, "/api/")?.flow()
    }

    #[test]
    fn flows_of_one_node() {
        let cases = [
            // (target, flow, whether it begins)
            ("/api/backups:create", Some((Flow::Backup, true))),
            ("/api/backups:restore", Some((Flow::Backup, true))),
            ("/api/backup:restoreUpload", Some((Flow::Backup, true))),
            ("/api/backups:upload", Some((Flow::Backup, true))),
            ("/api/__app/hr/backups:create", Some((Flow::Backup, true))),
            ("/api/backups:taskStatus", Some((Flow::Backup, false))),
            ("/api/backups:restoreStatus?taskId=1", Some((Flow::Backup, false))),
            ("/api/backup:status", Some((Flow::Backup, false))),
            ("/api/backups:list", Some((Flow::Backup, false))),
            ("/api/backups:download", Some((Flow::Backup, false))),
            ("/api/logger:list", Some((Flow::Logs, true))),
            ("/api/logger:download", Some((Flow::Logs, false))),
            ("/api/aiConversations:sendMessages", Some((Flow::Conversation, true))),
            ("/api/aiConversations:resumeStream", Some((Flow::Conversation, false))),
            ("/api/aiConversations:list", None),
            ("/api/pm:enable?filterByTk=x", Some((Flow::Admin, true))),
            ("/api/pm:listEnabled", None),
            ("/api/app:restart", Some((Flow::Admin, true))),
            ("/api/app:clearCache", Some((Flow::Admin, true))),
            ("/api/app:getInfo", None),
            ("/api/posts:create", None),
            ("/files/backups:create", None),
        ];
        for (target, expected) in cases {
            assert_eq!(flow(target), expected, "{target}");
        }
    }

    #[test]
    fn exports_and_imports_are_told_by_their_names() {
        let cases = [
            ("/api/posts:export", true),
            ("/api/posts:exportXlsxAsync", true),
            ("/api/posts/1/tags:importXlsx", true),
            ("/api/posts:downloadXlsxTemplate", false),
            ("/api/exports:list", false),
        ];
        for (target, bulk) in cases {
            assert_eq!(action("POST", target, "/api/").unwrap().is_bulk(), bulk, "{target}");
        }
    }
}
