SELECT
    text_hash,
    MIN(text) AS text,
    label,
    source,
    seen_at,
    CAST(trust AS INTEGER) AS trust,
    COUNT(*) AS copies
FROM {{ raw }}
GROUP BY text_hash, label, source, seen_at, trust
