crate::words! {
    /// The state of a bot. `running` bots take calls.
    BotStatus ("bot status") {
        /// Deployed: calls are taken.
        Running = "running",
        /// Deleted by its owner. Its invocations and the jobs that it judged stay readable.
        Terminated = "terminated",
    }
}
