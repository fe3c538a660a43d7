SELECT
    text_hash,
    MIN(text) AS text,
    label,
    source,
    seen_at,
    MAX(trust) AS trust,
    SUM(copies) AS copies
FROM (
    SELECT
        given.text_hash {{ bytewise }} AS text_hash,
        given.text {{ bytewise }} AS text,
        given.label {{ bytewise }} AS label,
        given.source {{ bytewise }} AS source,
        given.seen_at {{ bytewise }} AS seen_at,
        given.trust,
        given.copies
    FROM {{ curated }} AS given
    WHERE NOT EXISTS (
        SELECT 1
        FROM {{ sightings }} AS entered
        WHERE entered.text_hash = given.text_hash AND entered.label = given.label
            AND entered.source = given.source AND entered.seen_at = given.seen_at
    )
) AS fresh
GROUP BY text_hash, label, source, seen_at
