crate::words! {
    /// What a user or a service key may do in its org, from most to least. What each may do stands in the permission
    /// matrix of `control`.
    Role ("role") {
        /// Everything, users and keys included.
        Admin = "admin",
        /// Runs bots and, in the operators' org, books money; makes no users and no keys.
        Operator = "operator",
        /// Uploads, deploys and calls.
        User = "user",
        /// Reads.
        Viewer = "viewer",
    }
}

impl Role {
    /// Whether one who holds this role may give `other` to somebody: nobody gives more than they have.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self as u8 <= other as u8
    }
}

#[cfg(test)]
mod tests {
    use super::Role;

    #[test]
    fn nobody_gives_more_than_they_have() {
        for (given, holder) in Role::ALL.iter().enumerate() {
            for (wanted, other) in Role::ALL.iter().enumerate() {
                assert_eq!(holder.covers(*other), given <= wanted, "{holder} gives {other}");
            }
        }
    }
}
