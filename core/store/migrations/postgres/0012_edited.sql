-- edited is the seq of a message's newest edit; it was 1. Who left before it gets no text.
UPDATE messages SET edited = e.seq
    FROM (SELECT conversation_id, target, MAX(seq) AS seq FROM messages WHERE kind = 'edited' GROUP BY conversation_id, target) e
    WHERE messages.conversation_id = e.conversation_id AND messages.seq = e.target AND messages.edited = 1;
