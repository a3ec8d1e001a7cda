<?php

// An auth endpoint in plain PHP, as `php -S` serves it: it lets socket 1.2 subscribe to private-own, and says what it has
// understood.

$channel = $_POST['channel_name'] ?? null;
$socket = $_POST['socket_id'] ?? null;
$yes = $channel === 'private-own' && $socket === '1.2';
$answer = ['saw' => [$channel, $socket], 'token' => $_POST['token'] ?? null];
if ($yes) {
    $answer['auth'] = 'key:' . str_repeat('0', 64);
}
http_response_code($yes ? 200 : 403);
header('Content-Type: application/json');
echo json_encode($answer, JSON_INVALID_UTF8_SUBSTITUTE);
