use serde_json::json;

use crate::{Client, Host};

/// What a user logs in with, in tests.
pub const PASSWORD: &str = "correct horse battery staple";

/// What a user has who has logged in.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// Comes with every request.
    pub access: String,
    /// Is exchanged for new ones.
    pub refresh: String,
}

impl Tokens {
    /// Logs in.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn login(client: &Client, email: &str, password: &str) -> Self {
        let answer = client.post("/auth/login", "", &json!({ "email": email, "password": password })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        Self {
            access: answer.text_at("/access_token").to_owned(),
            refresh: answer.text_at("/refresh_token").to_owned(),
        }
    }

    /// Makes an admin of the operators by command, and logs it in.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn admin(host: &Host) -> Self {
        let arguments =
            ["user", "create", "--email", "root@example.org", "--name", "Root", "--role", "admin"];
        let made = host.command(&arguments, &format!("{PASSWORD}\n"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self::login(&host.client(), "root@example.org", PASSWORD).await
    }

    /// Makes a user of the org that `maker` belongs to, or of `org`, and logs it in.
    ///
    /// # Panics
    /// If it is refused.
    pub async fn user(client: &Client, maker: &Self, email: &str, role: &str, org: Option<&str>) -> Self {
        let user =
            json!({ "email": email, "name": email, "role": role, "password": PASSWORD, "org_id": org });
        let _ = client.post("/users", &maker.access, &user).await.expect(201);
        Self::login(client, email, PASSWORD).await
    }
}
