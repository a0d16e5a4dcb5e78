import java.io.DataInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.MessageDigest;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;

/** A server on Java's own TLS (JSSE): see README.md. It reads frames of less than 64 KiB, without fragments. */
public final class JsseServer {
    private static final int TEXT = 1;
    private static final int CLOSE = 8;
    private static final int PING = 9;
    private static final int PONG = 10;
    private static final String KEY_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"; // RFC 6455 §1.3

    private static final Set<JsseServer> ROOM = ConcurrentHashMap.newKeySet();
    private static final ScheduledExecutorService TIMERS = Executors.newScheduledThreadPool(1);

    private final DataInputStream input;
    private final OutputStream output;

    private JsseServer(SSLSocket socket) throws IOException {
        input = new DataInputStream(socket.getInputStream());
        output = socket.getOutputStream();
    }

    public static void main(String[] arguments) throws Exception {
        long pingMilliseconds = Long.parseLong(arguments[2]);
        SSLServerSocket listener =
            (SSLServerSocket)
                context(Path.of(arguments[3]), Path.of(arguments[4]))
                    .getServerSocketFactory()
                    .createServerSocket(
                        Integer.parseInt(arguments[1]), 512, InetAddress.getByName(arguments[0]));
        System.out.println("ready");
        while (true) {
            SSLSocket socket = (SSLSocket) listener.accept();
            Thread thread = new Thread(() -> serve(socket, pingMilliseconds));
            thread.setDaemon(true);
            thread.start();
        }
    }

    private static SSLContext context(Path certificate, Path key) throws Exception {
        Certificate[] chain = {null};
        try (InputStream file = Files.newInputStream(certificate)) {
            chain[0] = CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
        byte[] pkcs8 = Base64.getMimeDecoder().decode(Files.readString(key).replaceAll("-----.*-----", ""));
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, null);
        char[] password = {};
        store.setKeyEntry(
            "server", KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(pkcs8)), password, chain);
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(store, password);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        return context;
    }

    private static void serve(SSLSocket socket, long pingMilliseconds) {
        Future<?> pings = null;
        JsseServer self = null;
        try (socket) {
            socket.setTcpNoDelay(true);
            self = new JsseServer(socket);
            self.upgrade();
            if (pingMilliseconds > 0) {
                pings = self.repeat(pingMilliseconds, PING, new byte[0]);
            }
            self.answer();
        } catch (Exception end) {
            // The client is gone, or it is none: only this connection ends.
        } finally {
            if (pings != null) {
                pings.cancel(false);
            }
            if (self != null) {
                ROOM.remove(self);
            }
        }
    }

    private void upgrade() throws Exception {
        StringBuilder head = new StringBuilder();
        while (head.indexOf("\r\n\r\n") < 0) {
            head.append((char) input.readUnsignedByte());
        }
        String key = "";
        for (String line : head.toString().split("\r\n")) {
            if (line.toLowerCase().startsWith("sec-websocket-key:")) {
                key = line.substring(line.indexOf(':') + 1).trim();
            }
        }
        byte[] digest = MessageDigest.getInstance("SHA-1").digest((key + KEY_SUFFIX).getBytes(StandardCharsets.US_ASCII));
        String response =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
                + Base64.getEncoder().encodeToString(digest)
                + "\r\n\r\n";
        output.write(response.getBytes(StandardCharsets.US_ASCII));
    }

    private void answer() throws IOException {
        while (true) {
            int opcode = input.readUnsignedByte() & 0x0f;
            int length = input.readUnsignedByte() & 0x7f;
            if (length == 126) {
                length = input.readUnsignedShort();
            } else if (length == 127) {
                throw new IOException("a frame of 64 KiB or more");
            }
            byte[] mask = input.readNBytes(4);
            byte[] payload = input.readNBytes(length);
            for (int n = 0; n < payload.length; n++) {
                payload[n] ^= mask[n % 4];
            }
            if (opcode == CLOSE) {
                send(CLOSE, payload);
                return;
            } else if (opcode == PING) {
                send(PONG, payload);
            } else if (opcode == TEXT) {
                respond(payload);
            } else if (opcode != PONG) {
                send(opcode, payload);
            }
        }
    }

    private void respond(byte[] payload) throws IOException {
        String[] words = new String(payload, StandardCharsets.UTF_8).split(" ", 3);
        switch (words[0]) {
            case "burst" -> {
                for (int n = 0; n < Integer.parseInt(words[1]); n++) {
                    send(TEXT, payload);
                }
            }
            case "all" -> {
                ROOM.add(this);
                for (JsseServer member : ROOM) {
                    member.sendIfOpen(TEXT, payload);
                }
            }
            case "tick" -> repeat(Long.parseLong(words[1]), TEXT, "tick".getBytes(StandardCharsets.UTF_8));
            default -> send(TEXT, payload);
        }
    }

    /** Sends until sending fails. */
    private Future<?> repeat(long milliseconds, int opcode, byte[] payload) {
        Runnable task =
            () -> {
                try {
                    send(opcode, payload);
                } catch (IOException gone) {
                    throw new java.io.UncheckedIOException(gone); // which ends the repetition
                }
            };
        return TIMERS.scheduleAtFixedRate(task, milliseconds, milliseconds, TimeUnit.MILLISECONDS);
    }

    private void sendIfOpen(int opcode, byte[] payload) {
        try {
            send(opcode, payload);
        } catch (IOException gone) {
            // The member notices when it reads.
        }
    }

    /** One frame in one record. */
    private void send(int opcode, byte[] payload) throws IOException {
        ByteBuffer frame = ByteBuffer.allocate(4 + payload.length).put((byte) (0x80 | opcode));
        if (payload.length < 126) {
            frame.put((byte) payload.length);
        } else {
            frame.put((byte) 126).putShort((short) payload.length);
        }
        frame.put(payload);
        synchronized (output) {
            output.write(frame.array(), 0, frame.position());
        }
    }
}
