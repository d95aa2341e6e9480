import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.file.Files;
import org.apache.catalina.Context;
import org.apache.catalina.connector.Connector;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.buf.EncodedSolidusHandling;

/**
 * Tomcat with one servlet at /private/* and one default servlet. Each answers
 * with its name and its request target. The first connector has Tomcat's
 * defaults, the second accepts as many targets as Tomcat's settings allow, and
 * the third leaves encoded slashes encoded.
 */
public class Server {
    public static void main(String[] args) throws Exception {
        Tomcat tomcat = new Tomcat();
        tomcat.setBaseDir(Files.createTempDirectory("tomcat").toString());
        Connector strict = connector(tomcat);
        Connector loose = connector(tomcat);
        loose.setProperty("relaxedPathChars", "\"<>[\\]^`{|}");
        loose.setAllowBackslash(true);
        loose.setEncodedReverseSolidusHandling(EncodedSolidusHandling.DECODE.getValue());
        loose.setEncodedSolidusHandling(EncodedSolidusHandling.DECODE.getValue());
        Connector passing = connector(tomcat);
        passing.setEncodedReverseSolidusHandling(EncodedSolidusHandling.PASS_THROUGH.getValue());
        passing.setEncodedSolidusHandling(EncodedSolidusHandling.PASS_THROUGH.getValue());
        tomcat.setConnector(strict);

        Context context = tomcat.addContext("", null);
        serve(context, "private", "/private/*");
        serve(context, "public", "/");
        tomcat.start();
        System.out.println("ports " + strict.getLocalPort() + " " + loose.getLocalPort() + " " + passing.getLocalPort());
        tomcat.getServer().await();
    }

    private static Connector connector(Tomcat tomcat) {
        Connector connector = new Connector();
        connector.setPort(0);
        connector.setProperty("address", "127.0.0.1");
        connector.setThrowOnFailure(true);
        tomcat.getService().addConnector(connector);
        return connector;
    }

    private static void serve(Context context, String name, String pattern) {
        Tomcat.addServlet(context, name, new HttpServlet() {
            @Override
            protected void service(HttpServletRequest request, HttpServletResponse response) throws IOException {
                response.setContentType("text/plain;charset=utf-8");
                response.getWriter().println(name + " " + request.getRequestURI());
            }
        });
        context.addServletMappingDecoded(pattern, name);
    }
}
