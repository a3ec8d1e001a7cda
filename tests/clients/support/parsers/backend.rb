# An auth endpoint on Rack's parser: it lets socket 1.2 subscribe to private-own, and says what it has understood. The
# server around it is only as much HTTP as the tests speak.

require "json"
require "rack"
require "socket"

def answer(body)
  params = Rack::Utils.parse_nested_query(body)
  channel, socket = params.values_at("channel_name", "socket_id")
  yes = channel == "private-own" && socket == "1.2"
  answer = { saw: [channel, socket], token: params["token"] }
  answer[:auth] = "key:#{'0' * 64}" if yes
  [yes ? 200 : 403, JSON.generate(answer)]
rescue StandardError => error
  [400, JSON.generate({ error: error.class.name })]
end

def serve(client)
  while client.gets
    length = 0
    while (line = client.gets) && line != "\r\n"
      name, value = line.split(":", 2)
      length = value.to_i if name.casecmp?("content-length")
    end
    status, text = answer(client.read(length))
    client.write("HTTP/1.1 #{status} -\r\nContent-Length: #{text.bytesize}\r\n\r\n#{text}")
  end
rescue SystemCallError, IOError
  # The client has gone.
ensure
  client.close
end

server = TCPServer.new("127.0.0.1", 0)
puts "listening #{server.addr[1]}"
$stdout.flush
loop { Thread.new(server.accept) { |client| serve(client) } }
