"""The Graph transport: sendMail with MIME for mail that fits, drafts with upload sessions for what does not."""
