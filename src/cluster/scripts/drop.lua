-- Takes back what a node contributes. ARGV: 5 the node, 6 how many topics at most.
-- Answers: whether nothing is left.

if meta[1] ~= RUN then return { 'lost' } end
return { 'ok', drop(ARGV[5], tonumber(ARGV[6])) and 1 or 0 }
