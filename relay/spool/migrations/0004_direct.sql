-- Schema 4: a start asks which messages had a client waiting for Exchange's answer; with a million queued it must not look.

CREATE INDEX message_direct ON message (id) WHERE direct = 1 AND state < 4;
